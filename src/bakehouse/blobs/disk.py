"""Blobs as files: ``<root>/<shard>/<key>``, written to ``<root>/tmp`` first and moved when they are whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from bakehouse.blobs.base import Blob, Blobs
from bakehouse.core.errors import BakehouseError, Invalid, NotFound, TooLarge, Unavailable

CHUNK = 256 * 1024
_WRITE = 1024 * 1024
"""What is collected before a thread writes it: a hop to a thread per network packet would cost more than the disk."""
_KEY = re.compile(r"[a-z0-9][a-z0-9_]{2,99}", re.ASCII)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskBlobs(Blobs):
    """Blobs below *root*, which belongs to this server alone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"

    async def open(self) -> None:
        await asyncio.to_thread(self._open)

    async def put(self, key: str, chunks: AsyncIterable[bytes], *, limit: int) -> Blob:
        target = self._path(key)
        writer = await asyncio.to_thread(_Writer, self._temporary, limit)
        try:
            waiting = bytearray()
            async for chunk in chunks:
                waiting += chunk
                if len(waiting) >= _WRITE:
                    block, waiting = waiting, bytearray()
                    await asyncio.to_thread(writer.write, block)
            await asyncio.to_thread(writer.write, waiting)
            await asyncio.to_thread(writer.finish, target)
        finally:
            # Shielded: the file goes also when the caller is cancelled once more.
            await asyncio.shield(asyncio.to_thread(writer.abandon))
        return Blob(key, writer.size, writer.sha256)

    async def put_file(self, key: str, path: Path, *, limit: int) -> Blob:
        return await asyncio.to_thread(self._put_file, key, path, limit)

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open_for_reading, key, start)
        left = length
        try:
            while left is None or left > 0:
                block = await asyncio.to_thread(file.read, CHUNK if left is None else min(CHUNK, left))
                if not block:
                    return
                left = None if left is None else left - len(block)
                yield block
        finally:
            file.close()

    async def local(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise _missing(key)
        return path

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    async def keys(self) -> list[str]:
        return await asyncio.to_thread(lambda: [path.name for path in self._files()])

    async def usage(self) -> int:
        return await asyncio.to_thread(lambda: sum(path.stat().st_size for path in self._files()))

    def _open(self) -> None:
        self._temporary.mkdir(parents=True, exist_ok=True)
        for left in self._temporary.iterdir():
            _remove_unless_in_use(left)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise NotFound(f"no blob {key!r}")
        # The end of an id is random, its beginning is the time: shards by the end fill evenly.
        return self._root / key[-2:] / key

    def _files(self) -> Iterator[Path]:
        for shard in self._root.iterdir():
            if shard != self._temporary and shard.is_dir():
                yield from shard.iterdir()

    def _open_for_reading(self, key: str, start: int) -> BinaryIO:
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError:
            raise _missing(key) from None
        file.seek(start)
        return file

    def _put_file(self, key: str, path: Path, limit: int) -> Blob:
        target = self._path(key)
        with _open_untrusted(path) as source:
            writer = _Writer(self._temporary, limit)
            try:
                while block := source.read(_WRITE):
                    writer.write(block)
                writer.finish(target)
            finally:
                writer.abandon()
        return Blob(key, writer.size, writer.sha256)


class _Writer:
    """One temporary file on its way. May block.

    A cancelled caller leaves its thread at work, so a lock keeps ``abandon`` from closing a descriptor that is in use.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._path = directory / os.urandom(16).hex()
        self._limit = limit
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self.size = 0
        with _storage_errors():
            self._file = self._open()

    def _open(self) -> FileIO:
        while True:
            # Unbuffered: the blocks are large already, and a failing close would have nothing to lose.
            file = FileIO(self._path, "xb")
            # The lock says that the file is in use; it goes with the process, however that ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # a server that was just starting took it for a leftover, before it was locked

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, block: bytes | bytearray) -> None:
        self.size += len(block)
        if self.size > self._limit:
            raise TooLarge(f"the file is larger than {self._limit} bytes")
        self._hash.update(block)
        view = memoryview(block)
        with self._lock, _storage_errors():
            while view:
                view = view[self._file.write(view) or 0 :]

    def finish(self, target: Path) -> None:
        with self._lock, _storage_errors():
            os.fsync(self._file.fileno())
            target.parent.mkdir(exist_ok=True)
            self._path.replace(target)
            _sync_directory(target.parent)

    def abandon(self) -> None:
        with self._lock:
            self._file.close()
            self._path.unlink(missing_ok=True)


def _remove_unless_in_use(path: Path) -> None:
    """Remove what a dead process left; another server may be writing beside this one."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:  # gone, or in use
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _open_untrusted(path: Path) -> BinaryIO:
    try:
        # Not following a link, and not waiting for a writer where the file is a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"the file {path.name!r} cannot be read: {error.strerror}", code="output_file") from error
    state = os.fstat(descriptor)
    # A second name would mean a file from elsewhere; a directory on the way that became a link shows in the real path.
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1 or not _is_where_it_says(descriptor, path):
        os.close(descriptor)
        raise Invalid(f"{path.name!r} is not a regular file of its own", code="output_file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _is_where_it_says(descriptor: int, path: Path) -> bool:
    try:
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return True  # no /proc on this system: the checks before this one are all there is
    return real.parts[-3:] == path.parts[-3:]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno in _FULL else f"the disk failed: {error.strerror}"
        raise Unavailable(f"the file cannot be stored: {what}", retry_after=60) from error


def _missing(key: str) -> BakehouseError:
    return NotFound(f"no blob {key!r}")
