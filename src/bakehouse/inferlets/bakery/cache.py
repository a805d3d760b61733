"""Built programs, kept by the hash of all that went into them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

#: Raised whenever the same inputs are built into something else.
_FORMAT = "1"
_KEPT = 32


def digest_of(staged: Path, plan: str) -> str:
    """The hash of every staged file, the plan and the versions of the tools, in hexadecimal."""
    whole = hashlib.sha256()
    for part in (_FORMAT, version("componentize-py"), plan):
        _add(whole, part.encode())
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        _add(whole, path.relative_to(staged).as_posix().encode())
        _add(whole, path.read_bytes())
    return whole.hexdigest()


def _add(whole: hashlib._Hash, part: bytes) -> None:
    # With its length, so that no two lists of parts read the same.
    whole.update(len(part).to_bytes(8, "little"))
    whole.update(part)


class Cache:
    """The programs that were built last, in one folder. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: str) -> Path | None:
        path = self._path(digest)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def keep(self, digest: str, built: Path) -> Path:
        """Put *built* into the cache; those that were not asked for the longest give way."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(digest)
        place(built, path)
        for old in sorted(self._folder.glob("*.wasm"), key=_age)[_KEPT:]:
            old.unlink(missing_ok=True)
        return path

    @contextmanager
    def making(self, digest: str) -> Iterator[None]:
        """Alone among all processes that would make the same."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._folder / f"{digest}.lock"
        with lock.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            lock.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.wasm"


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):  # another process made place
        return -path.stat().st_mtime
    return 0.0


def place(source: Path, target: Path) -> None:
    """Copy *source* to *target*: all of it or nothing, whatever happens meanwhile."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copyfile(source, temporary)
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_all(files: Mapping[str, Path | bytes], folder: Path) -> None:
    """Put each file, or its content, to its path below *folder*."""
    for inside, content in files.items():
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
