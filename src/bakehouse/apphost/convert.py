"""Between JSON and an app's own objects: inputs into models, outputs into JSON with their files set aside."""

from __future__ import annotations

import math
import mimetypes
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

from . import messages
from .functions import Function, is_model
from .loader import derives

_FILE_KEYS = frozenset({"uri", "path", "content_type", "size", "filename"})
MAX_ERRORS = 20


class CallError(Exception):
    """A fault with a code of `messages.ERROR_CODES`; ``errors`` names wrong fields."""

    def __init__(self, code: str, message: str, errors: list[messages.Message] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.errors = errors


def to_model(model: Any, value: dict[str, Any], root: str, code: str = "invalid_input") -> Any:
    """``value`` as the annotated model, or unchanged for other annotations. Raises `CallError`."""
    if not is_model(model):
        return value
    try:
        return model.model_validate(value)
    except Exception as error:
        if not is_validation_error(error):
            raise
        raise _wrong_fields(error, root, code) from error


def is_validation_error(error: BaseException) -> bool:
    """Whether it is pydantic's, known by name: pydantic is the app's, not ours."""
    return type(error).__name__ == "ValidationError" and callable(getattr(error, "errors", None))


def _wrong_fields(error: Any, root: str, code: str) -> CallError:
    errors = [
        {"path": root + "".join(f"/{part}" for part in item["loc"]), "message": str(item["msg"])}
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS]
    ]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return CallError(code, f"{errors[0]['path']}: {errors[0]['message']}{more}", errors)


class Outbox:
    """Copies output files where the server takes them from; the app may then change its own as it likes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def convert(self, value: Any, function: Function) -> tuple[Any, list[messages.Message]]:
        """``value`` as JSON with null in place of its files, and the ``files`` entries. Raises `CallError`."""
        plain = self._dump(value, function)
        files: list[messages.Message] = []
        if isinstance(plain, (dict, list)):
            plain = self._take_files(plain, "", files)
        return plain, files

    def discard(self, files: list[messages.Message]) -> None:
        """Remove copies that no message will name."""
        for entry in files:
            (self._folder / entry["name"]).unlink(missing_ok=True)

    def _dump(self, value: Any, function: Function) -> Any:
        if value is None and is_model(function.output_type):
            raise CallError("no_output", f"{function.name}() returned nothing")
        if isinstance(value, dict) and is_model(function.output_type):
            value = to_model(function.output_type, value, "/output", "invalid_output")
        try:
            plain = value.model_dump(mode="json") if is_model(type(value)) else to_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise CallError("invalid_output", f"{function.name}() returned what JSON cannot say: {error}") from error
        if (
            isinstance(plain, dict)
            and plain.get("output_meta", plain) is None
            and derives(type(value), "BaseAppOutput")
        ):
            del plain["output_meta"]  # a field of the SDK that the app left alone
        if is_model(type(value)) and _holds_none(plain):
            # pydantic writes NaN as null where a field's type is Any: look at what stood there.
            place = _lost_number(plain, value.model_dump(), "")
            if place is not None:
                raise CallError("invalid_output", f"{function.name}() returned nan or infinity at {place}")
        return plain

    def _take_files(self, value: Any, pointer: str, files: list[messages.Message]) -> Any:
        if isinstance(value, dict):
            if _is_file(value):
                return self._take(value, pointer, files)
            return {
                key: self._take_files(item, f"{pointer}/{_escape(key)}", files) if type(item) in _NESTED else item
                for key, item in value.items()
            }
        return [
            self._take_files(item, f"{pointer}/{index}", files) if type(item) in _NESTED else item
            for index, item in enumerate(value)
        ]

    def _take(self, value: dict[str, Any], pointer: str, files: list[messages.Message]) -> Any:
        path = value.get("path")
        if not path:
            return value["uri"]
        source = Path(path)
        if not source.is_file():
            what = "is a folder" if source.is_dir() else "does not exist"
            raise CallError("output_file", f"the output file {path} {what} (at {pointer or '/'})")
        name = secrets.token_hex(16)
        try:
            shutil.copyfile(source, self._folder / name)
            size = (self._folder / name).stat().st_size
        except OSError as error:
            raise CallError("output_file", f"the output file {path} cannot be copied: {error.strerror}") from error
        filename = Path(str(value.get("filename") or path)).name or "file"
        content_type = value.get("content_type") or mimetypes.guess_type(filename)[0] or "application/octet-stream"
        files.append(messages.output_file(pointer, name, filename, str(content_type), size))
        return None


_NESTED = (dict, list)


def _holds_none(plain: Any) -> bool:
    items = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    return any(item is None or (type(item) in _NESTED and _holds_none(item)) for item in items)


def _lost_number(plain: Any, python: Any, where: str) -> str | None:
    """Where *plain* says null and *python* held a float; None if nowhere."""
    if plain is None:
        return where if isinstance(python, float) else None
    if isinstance(plain, dict) and isinstance(python, dict):
        pairs: Iterable[tuple[Any, Any]] = ((key, python.get(key)) for key in plain)
        found = (_lost_number(plain[key], item, f"{where}/{key}") for key, item in pairs)
    elif isinstance(plain, list) and isinstance(python, (list, tuple)):
        found = (_lost_number(a, b, f"{where}/{i}") for i, (a, b) in enumerate(zip(plain, python)))
    else:
        return None
    return next((place for place in found if place is not None), None)


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _is_file(value: dict[str, Any]) -> bool:
    """The form that both SDKs' ``File`` dumps to. A dict with only a path counts if that file exists."""
    if not value or not value.keys() <= _FILE_KEYS:
        return False
    path, uri = value.get("path"), value.get("uri")
    if isinstance(path, str) and path:
        return isinstance(uri, str) or len(value) > 1 or Path(path).is_file()
    return isinstance(uri, str) and len(value) > 1


def to_json(value: Any, where: str = "") -> Any:
    """Plain JSON values of what an app returned: models, dataclass-like dicts, lists, paths to files.

    Raises ``ValueError`` naming the place of NaN and infinities, ``TypeError`` of what JSON cannot say.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ValueError(f"{where or '/'} is {value}")
    if isinstance(value, dict):
        return {_key(key, where): to_json(item, f"{where}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item, f"{where}/{index}") for index, item in enumerate(value)]
    if hasattr(value, "model_dump"):
        return to_json(value.model_dump(mode="json"), where)
    if callable(getattr(value, "to_dict", None)) and hasattr(value, "path"):
        return to_json(value.to_dict(), where)
    if callable(getattr(value, "tolist", None)):
        return to_json(value.tolist(), where)  # numpy arrays and scalars, tensors
    raise TypeError(f"{where or '/'} is a {type(value).__name__}")


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (bool, int)) or key is None:
        return str(key)
    raise TypeError(f"{where or '/'} has a key of type {type(key).__name__}")


def encode_output(make: Callable[..., messages.Message], task_id: str, output: Any, files: list[Any]) -> bytes:
    """The frame of a result or partial. Raises `CallError` for NaN and for outputs over the frame limit."""
    try:
        return messages.encode(make(task_id, output, files))
    except (TypeError, ValueError, RecursionError) as error:
        reason: object = error
        try:
            to_json(output)  # names the place
        except (TypeError, ValueError, RecursionError) as located:
            reason = located
        raise CallError("invalid_output", f"the output is not JSON: {reason}") from error
