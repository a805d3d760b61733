"""Worker threads for what takes long and is not the model's: compiling grammars, reading adapters."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """*count* threads. Owners take turns: one that asks for a thousand pieces is as far from its next as one that asks
    for a single one, once both wait. Thread-safe."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        #: Pieces that wait, by owner; the owner whose turn it is comes first.
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], None]]]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, owner: str, function: Callable[[], T]) -> Future[T]:
        """Its result. Cancelling the future before it begins leaves it out."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((future, partial(_run, future, function)))
            # Each piece has a turn of some thread; whose piece is taken then is seen there.
            self._pool.submit(self._take_turn)
        return future

    def shutdown(self) -> None:
        """Wait for what runs; what has not begun is cancelled."""
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            waiting = [piece for pieces in self._waiting.values() for piece in pieces]
            self._waiting.clear()
        for future, _ in waiting:
            future.cancel()

    def _take_turn(self) -> None:
        with self._lock:
            owner, pieces = next(iter(self._waiting.items()))
            _, call = pieces.popleft()
            self._waiting.move_to_end(owner)
            if not pieces:
                del self._waiting[owner]
        call()


def _run(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # All of it is the caller's.
        future.set_exception(error)
