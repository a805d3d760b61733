"""What can be uploaded, told apart without reading it: files, bytes, data URIs, base64, file-like objects."""

from __future__ import annotations

import base64
import binascii
import io
import mimetypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable
from urllib.parse import unquote_to_bytes

from inferencesh._errors import BadFile
from inferencesh._models import UploadFileOptions

LONGEST_PATH = 4096
SHORTEST_BASE64 = 16

_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<parameters>(?:;[\w.+-]+=[^;,]*)*)(?P<base64>;base64)?,")


@dataclass(frozen=True)
class Upload:
    """Something to upload: ``open`` gives its ``size`` bytes from the start, as often as asked."""

    open: Callable[[], BinaryIO]
    size: int
    filename: str
    content_type: str

    def entry(self, options: UploadFileOptions) -> dict[str, Any]:
        """How it is announced to the server."""
        entry = {
            "uri": "",
            "filename": options.filename or self.filename,
            "content_type": options.content_type or self.content_type,
            "size": self.size,
            "public": options.public,
        }
        return {**entry, "path": options.path} if options.path else entry


def upload_of(value: Any) -> Upload:
    """*value*, which a caller wants uploaded, whatever it is. Raises BadFile."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _of_bytes(bytes(value))
    if is_file_object(value):
        return _of_file_object(value)
    if hasattr(value, "read"):
        return _of_stream(value)
    if isinstance(value, os.PathLike):
        return _of_path(Path(value))
    if isinstance(value, str):
        return _of_text(value)
    raise BadFile(f"cannot upload a {type(value).__name__}: pass a path, bytes, a data URI, base64 or an open file")


def is_uploadable_text(text: str) -> bool:
    """Whether a plain string of an input stands for a file: a data URI, or the path of an existing regular file."""
    return is_data_uri(text) or _is_regular_file(text)


def is_data_uri(text: str) -> bool:
    return text.startswith("data:") and _DATA_URI.match(text) is not None


def is_file_object(value: Any) -> bool:
    """Whether *value* is a ``File`` of the app SDK, ours or another one of the same shape."""
    return type(value).__name__ == "File" and all(hasattr(value, name) for name in ("uri", "path", "content_type"))


def remote_uri(file: Any) -> str | None:
    """The URL of a ``File`` that the server can fetch by itself; None for one that must be uploaded."""
    uri = str(file.uri or "")
    return uri if uri.startswith(("http://", "https://")) else None


def _is_regular_file(text: str) -> bool:
    if not text or len(text) > LONGEST_PATH or "\n" in text or "\0" in text:
        return False
    # Path.is_file would raise for names that the system finds too long.
    return os.path.isfile(text)  # noqa: PTH113


def _of_bytes(content: bytes, filename: str = "file", content_type: str | None = None) -> Upload:
    kind = content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    if filename == "file":
        filename += mimetypes.guess_extension(kind) or ".bin"
    return Upload(lambda: io.BytesIO(content), len(content), filename, kind)


def _of_path(path: Path) -> Upload:
    if not _is_regular_file(str(path)):
        what = "is not a regular file" if path.exists() else "does not exist"
        raise BadFile(f"{str(path)!r} {what}; pass the path of a file, or its bytes")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Upload(lambda: path.open("rb"), path.stat().st_size, path.name, kind)


def _of_file_object(file: Any) -> Upload:
    uri = str(file.uri or "")
    if not file.path and is_data_uri(uri):
        upload = _of_data_uri(uri)
    elif not file.path and uri:
        upload = _of_path(Path(uri[len("file://") :] if uri.startswith("file://") else uri))
    elif file.path:
        upload = _of_path(Path(file.path))
    else:
        raise BadFile("a File without path and uri holds nothing to upload")
    filename = getattr(file, "filename", None) or upload.filename
    return Upload(upload.open, upload.size, filename, file.content_type or upload.content_type)


class _Borrowed(io.RawIOBase):
    """A caller's open file, read from where it stood; closing this one leaves the caller's open."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        super().__init__()
        self._file = file
        file.seek(start)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _of_stream(file: Any) -> Upload:
    name = getattr(file, "name", None)
    filename = Path(name).name if isinstance(name, str) and name else "file"
    seekable = getattr(file, "seekable", None)
    if not callable(seekable) or not seekable():
        return _of_bytes(_binary(file.read()), filename)
    start = file.tell()
    if not isinstance(file.read(0), bytes):
        raise BadFile("the file is open as text; open it with mode 'rb'")
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return Upload(lambda: _borrow(file, start), size, filename, kind)


def _borrow(file: BinaryIO, start: int) -> BinaryIO:
    borrowed: Any = _Borrowed(file, start)
    result: BinaryIO = borrowed
    return result


def _binary(content: Any) -> bytes:
    if not isinstance(content, bytes):
        raise BadFile("the file is open as text; open it with mode 'rb'")
    return content


def _of_text(text: str) -> Upload:
    if is_data_uri(text):
        return _of_data_uri(text)
    if _is_regular_file(text):
        return _of_path(Path(text))
    decoded = _base64(text)
    if decoded is None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise BadFile(f"{shown!r} is neither an existing file nor a data URI nor base64; pass bytes for raw content")
    return _of_bytes(decoded)


def _base64(text: str) -> bytes | None:
    """*text* decoded, or None. Short texts are taken for paths that are wrong, not for content."""
    if len(text) < SHORTEST_BASE64 or len(text) % 4 or text.startswith(("~", ".")):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_data_uri(text: str) -> Upload:
    match = _DATA_URI.match(text)
    if match is None:
        raise BadFile("the data URI cannot be read; it begins with data:<type>;base64,")
    content = text[match.end() :]
    kind = match["type"] or "text/plain"
    if not match["base64"]:
        return _of_bytes(unquote_to_bytes(content), content_type=kind)
    try:
        return _of_bytes(base64.b64decode(content, validate=True), content_type=kind)
    except (binascii.Error, ValueError) as error:
        raise BadFile(f"the data URI holds no valid base64: {error}") from error


@dataclass(frozen=True)
class Found:
    """Something inside an input that must be uploaded, and where its URI goes."""

    upload: Upload
    put: Callable[[str], None]


def collect(value: Any) -> tuple[dict[str, Any], list[Found]]:
    """A box ``{"value": copy}`` with a JSON-able copy of *value*, and what in it must be uploaded.

    The copy is complete when a URI was ``put`` for each upload. Raises BadFile.
    """
    found: list[Found] = []
    return _copy_mapping({"value": value}, found), found


def _copy(value: Any, found: list[Found], put: Callable[[str], None]) -> Any:
    if isinstance(value, str):
        return _later(value, found, put) if is_uploadable_text(value) else value
    if isinstance(value, Mapping):
        return _copy_mapping(value, found)
    if isinstance(value, (list, tuple)):
        return _copy_list(value, found)
    if is_file_object(value):
        uri = remote_uri(value)
        return _later(value, found, put) if uri is None else uri
    if isinstance(value, (bytes, bytearray, memoryview, os.PathLike)) or hasattr(value, "read"):
        return _later(value, found, put)
    fields = getattr(type(value), "model_fields", None)
    if isinstance(fields, Mapping):  # a pydantic model; its own dump would turn files inside it into plain objects
        return _copy_mapping({_alias(name, field): getattr(value, name) for name, field in fields.items()}, found)
    return value


def _alias(name: str, field: Any) -> str:
    alias = getattr(field, "serialization_alias", None) or getattr(field, "alias", None)
    return alias if isinstance(alias, str) else name


def _later(value: Any, found: list[Found], put: Callable[[str], None]) -> None:
    found.append(Found(upload_of(value), put))


def _copy_mapping(value: Mapping[Any, Any], found: list[Found]) -> dict[Any, Any]:
    copy: dict[Any, Any] = {}
    for key, item in value.items():
        copy[key] = _copy(item, found, _setter(copy, key))
    return copy


def _copy_list(value: Any, found: list[Found]) -> list[Any]:
    copy: list[Any] = [None] * len(value)
    for index, item in enumerate(value):
        copy[index] = _copy(item, found, _setter(copy, index))
    return copy


def _setter(container: Any, key: Any) -> Callable[[str], None]:
    def put(uri: str) -> None:
        container[key] = uri

    return put
