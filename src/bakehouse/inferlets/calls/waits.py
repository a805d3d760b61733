"""Results that are there later: an instance's waits, all on one condition, without a thread or a poll for any of them.

A wait is a future, whose number is gone once its result was taken, or a stream, of a generation or a subscription.
Whoever completes one (the engine's courier, a worker, another instance) marks it and wakes the instance's thread.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TypeVar

from bakehouse.engine.errors import BadRequest, NotFound
from bakehouse.inferlets.calls.base import Interface, next_number, over
from bakehouse.inferlets.calls.packing import pack_ids, unpack_ids
from bakehouse.inferlets.calls.results import NOT_YET, Flow, NotYet, Wait, give_up, result_of
from bakehouse.inferlets.errors import Ended

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Numbers of streams that were read to their end, and may be asked once more.
OVER = 1024


class WaitTable:
    """All waits of one guest. Thread-safe; it is also the bell that the engine's streams ring."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._news = threading.Condition(threading.Lock())
        self._waits: dict[int, Wait] = {}
        self._ready: set[int] = set()
        self._over: dict[int, None] = {}
        self._asked: dict[int, list[Callable[[], None]]] = {}
        self._rung: deque[Callable[[], None]] = deque()
        self._due: list[Callable[[], None]] = []
        self._last = 0
        self._ended = False

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, start: Callable[[], Wait]) -> int:
        """The number of the wait that *start* makes, for which there is room. Raises `Refused`, `Ended`."""
        if len(self._waits) >= self._limit:
            raise over("waits", self._limit, "results that are waited for; take or drop some")
        wait = start()
        with self._news:
            ended = self._ended
            if not ended:
                number = self._last = next_number(self._last, self._waits)
                self._waits[number] = wait
        if ended:
            wait.drop()
            raise Ended("the instance is ending")
        wait.listen(self, number)
        return number

    # What wakes

    def touch(self, number: int) -> None:
        """The wait of that number may be ready now. From any thread."""
        with self._news:
            self.mark(number)
            due, self._due = self._due, []
        _tell_all(due)

    def ring(self, wake: Callable[[], None]) -> None:
        self._rung.append(wake)

    def flush(self) -> None:
        """Call what was rung; it marks."""
        with self._news:
            while self._rung:
                self._rung.popleft()()
            due, self._due = self._due, []
        _tell_all(due)

    def mark(self, number: int) -> None:
        """With the lock held: of what is rung, or touched."""
        wait = self._waits.get(number)
        if wait is not None and wait.ready():
            self._ready.add(number)
            self._due += self._asked.pop(number, ())
            self._news.notify_all()

    def when_ready(self, number: int, call: Callable[[], None]) -> None:
        """Call *call* once, from any thread, when `take` would answer at once, were it with an error."""
        with self._news:
            wait = self._waits.get(number)
            later = not self._ended and wait is not None and not wait.ready()
            if later:
                self._asked.setdefault(number, []).append(call)
        if not later:
            call()

    # What waits

    def take(self, number: int) -> str | None:
        """See the WIT. Blocks, holding nothing."""
        item: str | NotYet | None = NOT_YET
        while isinstance(item, NotYet):
            wait = self._await(number)
            if wait is None:
                return None
            try:
                item = wait.take()
            finally:
                self._took(number, wait)
        return item

    def _await(self, number: int) -> Wait | None:
        """The wait of that number when it is ready; None for a stream that is at its end."""
        with self._news:
            while True:
                self._check()
                wait = self._waits.get(number)
                if wait is None:
                    if number in self._over:
                        del self._over[number]
                        return None
                    raise _unknown(number)
                if wait.ready():
                    return wait
                self._news.wait()

    def _took(self, number: int, wait: Wait) -> None:
        with self._news:
            if wait.over:
                self._waits.pop(number, None)
                self._ready.discard(number)
                if wait.is_stream:
                    self._over[number] = None
                    if len(self._over) > OVER:
                        del self._over[next(iter(self._over))]
            elif not wait.ready():
                self._ready.discard(number)

    def any(self, numbers: Iterable[int], seconds: float) -> list[int]:
        """Those of *numbers* that are ready, as soon as there is one; none after *seconds*, if not negative."""
        wanted = set(numbers)
        if math.isnan(seconds) or (not wanted and seconds < 0):
            raise BadRequest.at("seconds", "nothing is waited for, and for ever")
        until = None if seconds < 0 else time.monotonic() + min(seconds, threading.TIMEOUT_MAX / 2)
        with self._news:
            while True:
                self._check()
                found = self._ready_of(wanted)
                left = None if until is None else until - time.monotonic()
                if found or (left is not None and left <= 0):
                    return found
                self._news.wait(left)

    def gather(self, number: int) -> None:
        """Make the generation of that number whole. Nothing happens when it is read out already."""
        with self._news:
            wait = self._waits.get(number)
            if isinstance(wait, Flow):
                wait.gather()
            elif number not in self._over:
                raise _unknown(number) if wait is None else BadRequest.at("generation", f"wait {number} is of none")

    def _ready_of(self, wanted: set[int]) -> list[int]:
        gone = wanted - self._waits.keys()
        for number in gone:
            if number not in self._over:
                raise _unknown(number)
        found = list(gone)
        for number in wanted & self._ready:
            if self._waits[number].ready():
                found.append(number)
            else:
                self._ready.discard(number)
        return sorted(found)

    def block(self, future: Future[T]) -> T:
        """The value of *future*, which has no number, or `Ended`."""
        future.add_done_callback(lambda _: self._wake())
        with self._news:
            while not future.done() and not self._ended:
                self._news.wait()
        if not future.done():
            give_up(future)
            raise Ended("the instance is ending")
        return result_of(future)

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    # The end

    def drop(self, number: int) -> None:
        with self._news:
            wait = self._waits.pop(number, None)
            self._ready.discard(number)
            self._over.pop(number, None)
            asked = self._asked.pop(number, ())
            self._news.notify_all()
        if wait is not None:
            wait.drop()
        _tell_all(asked)

    def end(self) -> None:
        """From now on whatever waits, and whatever comes, is `Ended`."""
        with self._news:
            self._ended = True
            asked, self._asked = self._asked, {}
            self._news.notify_all()
        for calls in asked.values():
            _tell_all(calls)

    def close(self) -> None:
        """`end`, and give everything up."""
        self.end()
        with self._news:
            waits, self._waits = self._waits, {}
            self._ready.clear()
            self._over.clear()
        with ExitStack() as stack:
            for wait in waits.values():
                stack.callback(wait.drop)

    def _check(self) -> None:
        if self._ended:
            raise Ended("the instance is ending")


def _tell_all(calls: Iterable[Callable[[], None]]) -> None:
    """On the thread of whoever completed a wait, which serves others too: what one of *calls* raises is logged."""
    for call in calls:
        try:
            call()
        except Exception:
            log.exception("who waits could not be told")


def _unknown(number: int) -> NotFound:
    return NotFound(f"there is no wait {number}: its result was taken, or it was dropped", field="wait")


class Waits(Interface):
    def take(self, wait: int) -> str | None:
        return self._guest.waits.take(wait)

    def any(self, waits: str, seconds: float) -> str:
        limit = self._guest.limits.waits
        if len(waits) > 4 * (limit + OVER):
            raise over("waits", limit, "results that are waited for; so many cannot be asked for at once")
        return pack_ids(self._guest.waits.any(unpack_ids(waits, "waits"), seconds))

    def drop(self, wait: int) -> None:
        self._guest.waits.drop(wait)
