"""Built programs, kept by the hash of all that went into them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path

from bakehouse.inferlets.alone import alone

#: Raised whenever the same inputs are built into something else.
_FORMAT = "2"


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
    """What was built last, in one folder, by the hash of what went in. Several processes may use it at once.

    What is in the folder *lent* is found too, and nothing is written there.
    """

    def __init__(self, folder: Path, suffix: str, kept: int, lent: Path | None = None) -> None:
        self._folder, self._suffix, self._kept, self._lent = folder, suffix, kept, lent

    def find(self, digest: str) -> bytes | None:
        path = self._path(digest)
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return self._find_lent(path.name)
        return content

    def _find_lent(self, name: str) -> bytes | None:
        if self._lent is not None:
            with suppress(OSError):  # without it, it is built again
                return (self._lent / name).read_bytes()
        return None

    def keep(self, digest: str, content: bytes) -> None:
        """Those that were not asked for the longest give way."""
        self._folder.mkdir(parents=True, exist_ok=True)
        place(content, self._path(digest))
        for old in sorted(self._folder.glob(f"*{self._suffix}"), key=_age)[self._kept :]:
            old.unlink(missing_ok=True)

    def making(self, digest: str) -> AbstractContextManager[None]:
        """Alone among all processes that would make the same."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return alone(self._folder / f"{digest}.lock")

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}{self._suffix}"


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):  # another process made place
        return -path.stat().st_mtime
    return 0.0


def place(content: bytes, target: Path) -> None:
    """Write *target*: all of it or nothing, whatever happens meanwhile."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(content)
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
