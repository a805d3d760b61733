"""The modules of one program, kept in memory.

The sandbox has no files. While a program is built, its sources and those of its dependencies are read into an `Image`,
which is part of the snapshot that every launch starts from; from then on modules are imported from there.
"""

from __future__ import annotations

import io
import marshal
import zlib
from collections.abc import Iterator, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.resources.abc import Traversable, TraversableResources
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import Any


class Squeezed(dict[str, bytes]):
    """Files that are seldom read: compressed."""

    def __setitem__(self, path: str, data: bytes) -> None:
        super().__setitem__(path, zlib.compress(data, 6))

    def __getitem__(self, path: str) -> bytes:
        return zlib.decompress(super().__getitem__(path))


class Image(MetaPathFinder):
    """Files by their path below one root, with ``/``; finds the modules among them.

    Of two files that are the same module, the later one counts. *compiled* is `compiled` of an image of these files.
    """

    def __init__(self, files: dict[str, bytes], compiled: dict[str, bytes] | None = None) -> None:
        self.files = files
        self._compiled = compiled or {}
        self._paths = {_module_of(path): path for path in files if path.endswith(".py")}
        self._folders = {folder for path in files for folder in _folders_of(path)}
        self._code: dict[str, CodeType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._paths.get(fullname)
        if file is None:
            return self._namespace(fullname)
        spec = spec_from_loader(fullname, _Loader(self, file), origin=file, is_package=file.endswith("/__init__.py"))
        assert spec is not None
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(file.rpartition("/")[0])
        return spec

    def _namespace(self, fullname: str) -> ModuleSpec | None:
        """A folder without ``__init__.py`` is a package too."""
        folder = fullname.replace(".", "/")
        if folder not in self._folders:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [folder]
        return spec

    def code(self, path: str) -> CodeType:
        """The code of the source at *path*, compiled once. Raises `SyntaxError`."""
        found = self._code.get(path)
        if found is None:
            ready = self._compiled.get(path)
            found = marshal.loads(ready) if ready else compile(self.files[path], path, "exec", dont_inherit=True)
            self._code[path] = found
        return found

    def compiled(self) -> dict[str, bytes]:
        """All sources as code, for this version of Python. Raises `SyntaxError`."""
        return {path: marshal.dumps(self.code(path)) for path in self.files if path.endswith(".py")}

    def loader(self, path: str) -> InspectLoader:
        return _Loader(self, path)


def _module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _folders_of(path: str) -> Iterator[str]:
    """The folders above *path*, nearest first."""
    folder = path.rpartition("/")[0]
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


class _Loader(InspectLoader):
    """Loads one file of an image."""

    def __init__(self, image: Image, path: str) -> None:
        self.image = image
        self.path = path

    def is_package(self, fullname: str) -> bool:
        return self.path.endswith("/__init__.py")

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_code(self, fullname: str) -> CodeType:
        return self.image.code(self.path)

    def get_source(self, fullname: str) -> str:
        import importlib.util

        return importlib.util.decode_source(self.image.files[self.path])

    def get_data(self, path: str) -> bytes:
        try:
            return self.image.files[path]
        except KeyError:
            raise FileNotFoundError(f"the program has no file {path!r}") from None

    def get_resource_reader(self, fullname: str) -> TraversableResources:
        return _Resources(_Place(self.image, self.path.rpartition("/")[0]))


class _Resources(TraversableResources):
    def __init__(self, place: _Place) -> None:
        self._place = place

    def files(self) -> Traversable:
        return self._place


class _Place(Traversable):
    """A file or folder of an image, for ``importlib.resources``."""

    def __init__(self, image: Image, path: str) -> None:
        self._image = image
        self._path = path

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    def iterdir(self) -> Iterator[_Place]:
        start = f"{self._path}/" if self._path else ""
        names = {path[len(start) :].partition("/")[0] for path in self._image.files if path.startswith(start)}
        return (_Place(self._image, start + name) for name in sorted(names))

    def is_file(self) -> bool:
        return self._path in self._image.files

    def is_dir(self) -> bool:
        return not self.is_file() and any(True for _ in self.iterdir())

    def joinpath(self, *descendants: Any) -> _Place:
        parts = [self._path, *(str(part) for part in descendants)]
        return _Place(self._image, "/".join(part.strip("/") for part in parts if part))

    def __truediv__(self, child: Any) -> _Place:
        return self.joinpath(child)

    def read_bytes(self) -> bytes:
        try:
            return self._image.files[self._path]
        except KeyError:
            raise FileNotFoundError(f"the program has no file {self._path!r}") from None

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode not in ("r", "rb"):
            raise ValueError(f"mode {mode!r}: a program's own files can only be read")
        data = io.BytesIO(self.read_bytes())
        return data if mode == "rb" else io.TextIOWrapper(data, *args, **{"encoding": "utf-8", **kwargs})
