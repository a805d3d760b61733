"""`File`: a file of an input or an output, wherever it comes from."""

import mimetypes
import os
from pathlib import Path
from typing import Any, Optional, Union

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ._fetch import decode, fetch, is_data_uri, is_url

_FIELDS = ("uri", "path", "content_type", "size", "filename")


class File:
    """A file given as a path, URL, ``data:`` URI, dict or another `File`.

    URLs and data URIs are fetched to the local cache when the object is made, so ``path`` is always local. A path
    need not exist yet. In schemas a file is ``{"type": "string", "format": "file"}``: callers see URLs only.

    Attributes: ``uri`` (where it came from), ``path`` (absolute, local), ``content_type``, ``size`` (bytes),
    ``filename``; each is None while unknown.

    Raises ``ValueError`` when neither ``uri`` nor ``path`` is given, ``RuntimeError`` when a download fails.
    """

    def __init__(
        self,
        initializer: Union[str, "os.PathLike[str]", "dict[str, Any]", "File", None] = None,
        *,
        uri: Optional[str] = None,
        path: Union[str, "os.PathLike[str]", None] = None,
        content_type: Optional[str] = None,
        size: Optional[int] = None,
        filename: Optional[str] = None,
    ) -> None:
        given = {"uri": uri, "path": path, "content_type": content_type, "size": size, "filename": filename}
        for key, value in _spread(initializer).items():
            if given.get(key) is None:
                given[key] = value
        self.uri: Optional[str] = given["uri"] or None  # type: ignore[assignment]
        self.content_type: Optional[str] = given["content_type"]  # type: ignore[assignment]
        self.size: Optional[int] = given["size"]  # type: ignore[assignment]
        self.filename: Optional[str] = given["filename"]  # type: ignore[assignment]
        self._path = self._resolve(given["path"])
        self._fill()

    @property
    def path(self) -> Optional[str]:
        """The absolute local path."""
        return self._path

    @path.setter
    def path(self, value: Union[str, "os.PathLike[str]", None]) -> None:
        self._path = None if value is None else str(Path(value).absolute())

    @classmethod
    def from_path(cls, path: Union[str, "os.PathLike[str]"]) -> "File":
        """A file on this machine, with its metadata filled in if it exists."""
        return cls(path=path)

    def exists(self) -> bool:
        """Whether the local file is there now."""
        return self._path is not None and Path(self._path).exists()

    def is_local(self) -> bool:
        """Whether there is a local path with a file behind it."""
        return self.exists()

    def is_resolved(self) -> bool:
        """Whether a local path is known; for fetched files always true."""
        return self._path is not None

    def refresh_metadata(self) -> None:
        """Read content type, size and name again: the file has changed. Nothing happens if it is gone."""
        if self.exists():
            self.content_type = self.size = self.filename = None
            self._fill()

    def to_dict(self) -> "dict[str, Any]":
        """The known fields, as they are sent."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    def __fspath__(self) -> str:
        if self._path is None:
            raise ValueError("the file has no local path")
        return self._path

    def __repr__(self) -> str:
        return f"File({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.uri, self._path))

    def _resolve(self, path: Any) -> Optional[str]:
        if path:
            return str(Path(path).absolute())
        if not self.uri:
            raise ValueError("Either 'uri' or 'path' must be provided")
        if is_data_uri(self.uri):
            decoded, media_type = decode(self.uri)
            self.content_type = self.content_type or media_type
            return str(decoded)
        if is_url(self.uri):
            return str(fetch(self.uri).absolute())
        return str(Path(self.uri).absolute())

    def _fill(self) -> None:
        if self._path is None:
            return
        self.filename = self.filename or Path(self._path).name
        self.content_type = self.content_type or mimetypes.guess_type(self.filename)[0]
        if self.size is None and Path(self._path).is_file():
            self.size = Path(self._path).stat().st_size

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(cls.to_dict)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> "dict[str, Any]":
        return {"type": "string", "format": "file"}

    @classmethod
    def _validate(cls, value: Any) -> "File":
        if isinstance(value, cls):
            return value
        if not isinstance(value, (str, dict, os.PathLike)) or not value:
            raise ValueError("a file is a URL, a path, a data URI or an object with one of them")
        try:
            return cls(value)
        except RuntimeError as error:
            raise ValueError(str(error)) from error  # so that the wrong field is named


def _spread(initializer: Any) -> "dict[str, Any]":
    if initializer is None:
        return {}
    if isinstance(initializer, File):
        return initializer.to_dict()
    if isinstance(initializer, dict):
        return {name: initializer.get(name) for name in _FIELDS}
    if isinstance(initializer, str):
        return {"uri": initializer}
    if isinstance(initializer, os.PathLike):
        return {"path": os.fspath(initializer)}
    raise ValueError(f"a file cannot be made of {type(initializer).__name__}")
