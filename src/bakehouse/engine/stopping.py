"""Stop strings over tokens: matched on bytes, so that borders of tokens and characters do not matter.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Released(Generic[Item]):
    """``items`` that no stop string can touch any more. ``hit``: one was found; ``rest`` is then the part of the next
    item that stands before it, as bytes, and everything after is to be dropped."""

    items: list[Item]
    hit: bool = False
    rest: bytes = b""


class StopStrings(Generic[Item]):
    """Holds items back while their bytes may be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str], bytes_of: Callable[[Item], bytes]) -> None:
        self._strings = tuple(text.encode() for text in strings)
        self._bytes_of = bytes_of
        self._bytes = b""
        self._held: list[tuple[Item, int]] = []
        """Items that are held, each with where its bytes end in `_bytes`."""

    def feed(self, item: Item) -> Released[Item]:
        if not self._strings:
            return Released([item])
        self._bytes += self._bytes_of(item)
        self._held.append((item, len(self._bytes)))
        found = [at for at in (self._bytes.find(text) for text in self._strings) if at >= 0]
        if found:
            return self._cut(min(found))
        return Released(self._release(len(self._bytes) - self._open_end()))

    def useful(self, items: Sequence[Item]) -> int:
        """How many of *items* can matter if they come next: what stands behind a stop string cannot."""
        text = self._bytes
        for count, item in enumerate(items if self._strings else (), 1):
            text += self._bytes_of(item)
            if any(string in text for string in self._strings):
                return count
        return len(items)

    def finish(self) -> list[Item]:
        """What was held: no stop string came of it."""
        return self._release(len(self._bytes))

    def _cut(self, at: int) -> Released[Item]:
        start = max((end for _, end in self._held if end <= at), default=0)
        rest = self._bytes[start:at]
        items = [item for item, end in self._held if end <= at]
        self._held, self._bytes = [], b""
        return Released(items, hit=True, rest=rest)

    def _open_end(self) -> int:
        """How many bytes at the end may begin a stop string."""
        longest = max(map(len, self._strings)) - 1
        for size in range(min(longest, len(self._bytes)), 0, -1):
            end = self._bytes[-size:]
            if any(text.startswith(end) for text in self._strings):
                return size
        return 0

    def _release(self, upto: int) -> list[Item]:
        items = [item for item, end in self._held if end <= upto]
        if items:
            cut = self._held[len(items) - 1][1]
            self._held = [(item, end - cut) for item, end in self._held[len(items) :]]
            self._bytes = self._bytes[cut:]
        return items
