"""Worker threads for what takes long and is not the model's: compiling grammars, reading adapters."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """*count* threads. Owners take turns: one that asks for a thousand pieces is as far from its next as one that asks
    for a single one, once both wait. None has all threads at one time, where there are several. Thread-safe."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._most = max(count - 1, 1)
        #: Pieces that wait, by owner; the owner whose turn it is comes first.
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], None]]]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, owner: str, function: Callable[[], T]) -> Future[T]:
        """Its result. Cancelling the future before it begins leaves it out."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((future, partial(_run, future, function)))
            self._pool.submit(self._work)
        return future

    def shutdown(self) -> None:
        """Wait for what runs; what has not begun is cancelled."""
        with self._lock:
            waiting = [piece for pieces in self._waiting.values() for piece in pieces]
            self._waiting.clear()
        for future, _ in waiting:
            future.cancel()
        self._pool.shutdown(cancel_futures=True)

    def _work(self) -> None:
        """Go on until there is nothing that may begin. What waits for its owner's other pieces is begun after those."""
        before: str | None = None
        while (following := self._next(before)) is not None:
            before, call = following
            call()

    def _next(self, before: str | None) -> tuple[str, Callable[[], None]] | None:
        with self._lock:
            if before is not None:
                self._running[before] -= 1
                if not self._running[before]:
                    del self._running[before]
            owner = next((owner for owner in self._waiting if self._running[owner] < self._most), None)
            if owner is None:
                return None
            pieces = self._waiting[owner]
            _, call = pieces.popleft()
            self._running[owner] += 1
            self._waiting.move_to_end(owner)
            if not pieces:
                del self._waiting[owner]
            return owner, call


def _run(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # All of it is the caller's.
        future.set_exception(error)
