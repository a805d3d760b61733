"""Free pages as runs of consecutive ids, so that a context's pages lie side by side where there is room."""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class FreeRuns:
    """A set of page ids. Taking and giving back are O(log runs); nothing is looked at page by page.

    A new holder starts in the middle of the longest run, so that the one who lives before it can go on growing.
    """

    def __init__(self, total: int) -> None:
        self._length: dict[int, int] = {}  # start -> length
        self._start: dict[int, int] = {}  # stop -> start
        self._longest: list[tuple[int, int]] = []  # (-length, start); old entries stay until they are met
        self.count = 0
        if total:
            self._add(0, total)
            self.count = total

    def __contains__(self, page: int) -> bool:
        return any(start <= page < start + length for start, length in self._length.items())

    def runs(self) -> list[tuple[int, int]]:
        """(start, length) in order; for checks."""
        return sorted(self._length.items())

    def take(self, count: int, after: int | None) -> list[int]:
        """*count* pages, which must be there, going on behind page *after* where that is free."""
        taken: list[int] = []
        at = None if after is None else after + 1
        while len(taken) < count:
            wanted = count - len(taken)
            if at is None or at not in self._length:
                at = self._place(wanted)
            start, length = at, min(wanted, self._length[at])
            self._remove_head(start, length)
            taken.extend(range(start, start + length))
            at = start + length
        self.count -= count
        return taken

    def give(self, page: int) -> None:
        start, stop = page, page + 1
        if page in self._start:
            start = self._start[page]
            self._drop(start)
        if stop in self._length:
            length = self._length[stop]
            self._drop(stop)
            stop += length
        self._add(start, stop - start)
        self.count += 1

    def _place(self, wanted: int) -> int:
        """Where a new run of *wanted* pages starts; the run there is split so that it is a start."""
        while True:
            length, start = -self._longest[0][0], self._longest[0][1]
            if self._length.get(start) == length:
                break
            heappop(self._longest)
        middle = start + length // 2
        if length < 4 * wanted or start == middle:
            return start
        self._drop(start)
        self._add(start, middle - start)
        self._add(middle, start + length - middle)
        return middle

    def _remove_head(self, start: int, count: int) -> None:
        length = self._length[start]
        self._drop(start)
        if length > count:
            self._add(start + count, length - count)

    def _add(self, start: int, length: int) -> None:
        self._length[start] = length
        self._start[start + length] = start
        heappush(self._longest, (-length, start))
        if len(self._longest) > 64 + 4 * len(self._length):
            self._longest = [(-length, start) for start, length in self._length.items()]
            heapify(self._longest)

    def _drop(self, start: int) -> None:
        del self._start[start + self._length.pop(start)]
