"""Bytes that the grammars of one model may take, and how owners share them."""

from __future__ import annotations

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable

from bakehouse.engine.errors import LimitExceeded


class Room:
    """*size* bytes. An owner may have as many as it leaves free: the first one half of them, the next half of the rest.

    So nobody takes the last of it. Thread-safe.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used: Counter[str] = Counter()
        # Finalizers add to it. They run in the midst of anything, also of what holds the lock.
        self._back: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are taken now."""
        with self._lock:
            self._settle()
            return self._used.total()

    def take(self, thing: object, owner: str, size: int, spare: Callable[[], bool]) -> None:
        """*size* bytes for *owner* until *thing* is gone.

        *spare* is called where they are not there: it lets go of something, or says that there is nothing to let go of.
        Raises `LimitExceeded` then.
        """
        while not self._take(owner, size):
            if not spare():
                raise LimitExceeded(
                    f"grammars: those of one owner may take as much memory as they leave free of {self._size} bytes; "
                    "release some, or use simpler ones"
                )
        weakref.finalize(thing, self._back.append, (owner, size)).atexit = False

    def _take(self, owner: str, size: int) -> bool:
        with self._lock:
            self._settle()
            free = self._size - self._used.total() - size
            if self._used[owner] + size > free:
                return False
            self._used[owner] += size
            return True

    def _settle(self) -> None:
        while self._back:
            owner, size = self._back.popleft()
            self._used[owner] -= size
            if not self._used[owner]:
                del self._used[owner]
