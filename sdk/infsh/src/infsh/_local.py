"""Runs one function of an app once, without a server. Started by path in the app's own Python.

Standard library only: the app's environment may hold either SDK and nothing else. The app's own output goes to
stderr; stdout carries one JSON object per line: ``progress``, ``partial``, ``delta`` and at last ``result`` or
``error``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import math
import os
import sys
import tempfile
import traceback
import typing
from pathlib import Path
from typing import Any, Callable

SDKS = ("infsh", "inferencesh")
HOOKS = ("setup", "unload", "on_cancel")


class Fault(Exception):
    """The request or the app does not fit; ``kind`` is ``usage`` or ``app``."""

    def __init__(self, message: str, kind: str = "app") -> None:
        super().__init__(message)
        self.kind = kind


class Context:
    """``self.context`` of a local run."""

    task_id = "local"
    app_id = "local"
    owner_id = "local"
    session_id = None
    attempt = 1
    cancel_requested = False

    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata


def load(folder: Path) -> type[Any]:
    """The app's class. Raises `Fault` and whatever its module raises."""
    path = folder / "inference.py"
    if not path.is_file():
        raise Fault(f"{folder} has no inference.py", "usage")
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("inference", str(path))
    if spec is None or spec.loader is None:
        raise Fault(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["inference"] = module
    spec.loader.exec_module(module)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == "inference" and base_of(value) is not None
    ]
    leaves = [cls for cls in found if not any(cls is not other and issubclass(other, cls) for other in found)]
    if len(leaves) != 1:
        names = ", ".join(cls.__name__ for cls in leaves) or "none"
        raise Fault(f"inference.py must define one subclass of BaseApp; found {names}")
    return leaves[0]


def base_of(cls: type[Any]) -> Any:
    """The SDK's ``BaseApp`` among the bases, of either SDK."""
    return next((b for b in cls.__mro__ if b.__name__ == "BaseApp" and b.__module__.split(".")[0] in SDKS), None)


def functions_of(cls: type[Any]) -> list[str]:
    """Public methods of the app itself that are no hooks."""
    own: list[str] = []
    for base in cls.__mro__[: cls.__mro__.index(base_of(cls))]:
        own += [n for n, v in vars(base).items() if inspect.isfunction(v) and n[0] != "_" and n not in HOOKS]
    return list(dict.fromkeys(own))


def is_model(hint: Any) -> bool:
    """Whether it is a pydantic model."""
    return isinstance(hint, type) and hasattr(hint, "model_validate")


def fill(method: Callable[..., Any], value: dict[str, Any], metadata: Any, what: str) -> list[Any]:
    """The arguments of ``method``: its input as the annotated model, ``metadata`` if it takes that."""
    hints = typing.get_type_hints(method)
    arguments: list[Any] = []
    taken = False
    for parameter in inspect.signature(method).parameters.values():
        hint = hints.get(parameter.name)
        if parameter.name == "metadata" or getattr(hint, "__name__", "") == "Metadata":
            arguments.append(metadata)
        elif not taken and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            arguments.append(validated(hint, value, what))
            taken = True
        else:
            break
    return arguments


def validated(model: Any, value: dict[str, Any], what: str) -> Any:
    """``value`` as ``model``; a wrong field is a `Fault` that names it."""
    if not is_model(model):
        return value
    try:
        return model.model_validate(value)
    except ValueError as error:
        errors = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
        lines = [f"{what}{''.join(f'/{part}' for part in item['loc'])}: {item['msg']}" for item in errors]
        raise Fault("\n".join(lines), "usage") from error


def plain(value: Any) -> Any:
    """JSON of an output; files are shown by their path, and must exist."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
        if isinstance(value, dict) and value.get("output_meta", value) is None:
            del value["output_meta"]
    elif hasattr(value, "to_dict") and hasattr(value, "path"):
        value = value.to_dict()
    if isinstance(value, dict):
        if isinstance(value.get("path"), str) and value.keys() <= {"uri", "path", "content_type", "size", "filename"}:
            if len(value) > 1 and not os.path.isfile(value["path"]):  # noqa: PTH113 - as given
                raise Fault(f"the output file {value['path']} does not exist")
            return value["path"]
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault(f"the output holds {value}, which is not JSON")
    return value


class Run:
    """One local run; ``say`` gets its events."""

    def __init__(self, cls: type[Any], say: Callable[..., None], temporary: str) -> None:
        self._say = say
        self.app = cls()
        kind = getattr(sys.modules.get(base_of(cls).__module__.split(".")[0]), "Metadata", None)
        self.metadata = kind(task_id="local", app_id="local") if kind else {"task_id": "local"}
        given = {"context": Context(self.metadata), "logger": logging.getLogger("app")}
        given.update({"temp_dir": Path(temporary), "report_progress": self._progress})
        for name, value in given.items():
            self.app.__dict__[name] = value

    def _progress(self, current: float, total: float, message: str | None = None) -> None:
        self._say("progress", current=current, total=total, message=message)

    async def once(self, function: str, value: dict[str, Any], setup: dict[str, Any]) -> Any:
        """Set up, run, unload; the output as JSON."""
        hook = self.app.setup if hasattr(self.app, "setup") else None
        if hook is not None:
            await settle(hook(*fill(hook, setup, self.metadata, "/setup")))
        try:
            method = getattr(self.app, function)
            return await self._collect(function, method(*fill(method, value, self.metadata, "/input")))
        finally:
            if hasattr(self.app, "unload"):
                await settle(self.app.unload())

    async def _collect(self, function: str, outcome: Any) -> Any:
        if not inspect.isasyncgen(outcome) and not inspect.isgenerator(outcome):
            return plain(await settle(outcome))
        last, yielded = None, False
        async for item in each(outcome):
            if any(base.__name__ == "StreamDelta" for base in type(item).__mro__):
                self._say("delta", delta=plain(item))
                continue
            last, yielded = plain(item), True
            self._say("partial", output=last)
        if not yielded:
            raise Fault(f"{function}() yielded nothing")
        return last


async def settle(outcome: Any) -> Any:
    """The value, awaited if it is awaitable."""
    return await outcome if inspect.isawaitable(outcome) else outcome


async def each(outcome: Any) -> Any:
    """The items of a generator of either colour."""
    if inspect.isasyncgen(outcome):
        async for item in outcome:
            yield item
    else:
        for item in outcome:
            yield item


def main(arguments: list[str]) -> int:
    """``FOLDER REQUEST``: the request is JSON with ``function``, ``input``, ``setup``. Returns the exit status."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever the app writes to descriptor 1, in C or Python, must not land between our events.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")

    def say(event: str, **fields: Any) -> None:
        out.write(json.dumps({"event": event, **fields}) + "\n")
        out.flush()

    try:
        say("result", output=_run(Path(arguments[0]).resolve(), json.loads(arguments[1]), say))
    except Fault as error:
        say("error", message=str(error), kind=error.kind)
        return 2 if error.kind == "usage" else 1
    except BaseException as error:
        traceback.print_exc()
        say("error", message=f"{type(error).__name__}: {error}", kind="app")
        return 1
    return 0


def _run(folder: Path, request: dict[str, Any], say: Callable[..., None]) -> Any:
    cls = load(folder)
    known = functions_of(cls)
    function = request.get("function") or ("run" if "run" in known or len(known) != 1 else known[0])
    if function not in known:
        raise Fault(f"there is no function {function!r}; the app has {', '.join(known) or 'none'}", "usage")
    with tempfile.TemporaryDirectory(prefix="infsh-") as temporary:
        run = Run(cls, say, temporary)
        return asyncio.run(run.once(function, request.get("input") or {}, request.get("setup") or {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
