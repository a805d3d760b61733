"""Work that takes long and runs beside the model, one piece at a time for each instance.

The engine has few workers for it: an instance that asks for a hundred grammars at once is served like one that asks for
one after the other, and others do not stand behind all hundred.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

from bakehouse.engine.errors import Cancelled

T = TypeVar("T")


class Later(Future[T], Generic[T]):
    """What a piece of work gives when its turn has come."""

    def __init__(self, line: Line, start: Callable[[], Future[T]]) -> None:
        super().__init__()
        self.start = start
        self._line = line

    def give_up(self) -> None:
        """Leave the line. Work that has begun runs on, and ends as if nobody had given it up."""
        if self._line.leave(self):
            self.cancel()


class Line:
    """Of one instance. Thread-safe; does not block."""

    def __init__(self) -> None:
        self._waiting: deque[Later[Any]] = deque()
        self._busy = self._moving = False
        self._lock = threading.Lock()

    def run(self, start: Callable[[], Future[T]]) -> Later[T]:
        """Call *start* when all that came before is over. What it raises is the future's."""
        later = Later(self, start)
        with self._lock:
            self._waiting.append(later)
        self._go_on()
        return later

    def leave(self, later: Later[Any]) -> bool:
        """Whether *later* was still waiting. It no longer is."""
        with self._lock:
            if later not in self._waiting:
                return False
            self._waiting.remove(later)
            return True

    def _go_on(self) -> None:
        with self._lock:
            if self._moving:  # that thread looks again
                return
            self._moving = True
        while (later := self._next()) is not None:
            later.set_running_or_notify_cancel()
            try:
                started = later.start()
            except BaseException as error:  # All of it is the caller's.
                started = Future()
                started.set_exception(error)
            started.add_done_callback(partial(self._over, later))

    def _next(self) -> Later[Any] | None:
        with self._lock:
            if self._busy or not self._waiting:
                self._moving = False
                return None
            self._busy = True
            return self._waiting.popleft()

    def _over(self, later: Later[Any], done: Future[Any]) -> None:
        with self._lock:
            self._busy = False
        error = Cancelled("it was given up") if done.cancelled() else done.exception()
        if error is not None:
            later.set_exception(error)
        else:
            later.set_result(done.result())
        self._go_on()
