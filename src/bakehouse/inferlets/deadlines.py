"""One thread that looks after the time limits of all instances."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)


class Timed(Protocol):
    @property
    def deadline(self) -> float:
        """Seconds of `time.monotonic`."""


T = TypeVar("T", bound=Timed)


class Deadlines(Generic[T]):
    """Calls *late* for each of *live()* whose deadline has passed: once, or again where it stays in *live()*.

    What has ended is forgotten by not being in *live()*: there is nothing here that grows with the number of launches.
    """

    def __init__(self, live: Callable[[], Iterable[T]], late: Callable[[T], None], again: float = 5.0) -> None:
        self._live, self._late, self._again = live, late, again
        self._news = threading.Condition()
        self._next = float("inf")
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inferlets-deadlines", daemon=True)
        self._thread.start()

    def add(self, deadline: float) -> None:
        """There is one more, which must be looked at then."""
        if deadline < self._next:
            with self._news:
                self._next = min(self._next, deadline)
                self._news.notify()

    def close(self) -> None:
        """Stop looking. May be repeated."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._sleep():
            now = time.monotonic()
            # From here on `add` lowers it again; an instance is in `live` before it is added.
            self._next = float("inf")
            for each in self._live():
                if each.deadline <= now:
                    self._tell(each)
                self.add(each.deadline if each.deadline > now else now + self._again)

    def _tell(self, each: T) -> None:
        try:
            self._late(each)
        except Exception:
            # One that cannot be ended now is tried again; the limits of the others must hold meanwhile.
            log.exception("what was late could not be ended")

    def _sleep(self) -> bool:
        """Until the next deadline. False when it is closed."""
        with self._news:
            while not self._closed:
                left = self._next - time.monotonic()
                if left <= 0:
                    return True
                self._news.wait(min(left, threading.TIMEOUT_MAX))
            return False
