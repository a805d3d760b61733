"""The contract of blob storage. A key is chosen by the caller, once per content: contents never change.

Methods raise TooLarge, NotFound and Unavailable (disk full, storage away) and nothing of a driver's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Blob:
    """What is kept under ``key``: ``size`` in bytes, ``sha256`` in hexadecimal."""

    key: str
    size: int
    sha256: str


class Blobs(ABC):
    """See the module's text for what holds of every method."""

    @abstractmethod
    async def open(self) -> None:
        """Make ready, and remove what an earlier process left half-written. May be repeated."""

    @abstractmethod
    async def put(self, key: str, chunks: AsyncIterable[bytes], *, limit: int) -> Blob:
        """Keep what *chunks* yields under *key*, replacing what was there, all at once and durably.

        Raises TooLarge as soon as more than *limit* bytes came. When it raises, or is cancelled, or *chunks* raises,
        nothing is left behind and what was under *key* before is still there.
        """

    @abstractmethod
    async def put_file(self, key: str, path: Path, *, limit: int) -> Blob:
        """Keep a copy of the regular file *path*, which code that we do not trust may have left there.

        A link, or anything that is no regular file of its own, raises Invalid. Otherwise as ``put``.
        """

    @abstractmethod
    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Bytes *start* to *start + length* (None: the end) in chunks. NotFound on the first step."""

    @abstractmethod
    async def local(self, key: str) -> Path:
        """A path on this machine that holds the content, to be read only. NotFound."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove it; a missing one is no error. Readers that have begun may finish."""

    @abstractmethod
    async def keys(self) -> list[str]:
        """Every key, for finding contents that no record knows. May be slow."""

    @abstractmethod
    async def usage(self) -> int:
        """Bytes kept in all. May be slow."""
