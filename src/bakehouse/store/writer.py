"""Group commit: one thread, one connection, one transaction for all that waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, get_args

from bakehouse.core.errors import BakehouseError, Unavailable
from bakehouse.store.connection import Connection
from bakehouse.store.driver import Driver
from bakehouse.store.hot import HotOp

LAZY_SECONDS = 0.005
MAX_BATCH = 512
RETRIES = 5
BACKOFF = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds to wait before each try to connect again, for one batch."""

_HOT = get_args(HotOp)
_SAVEPOINT, _RELEASE, _BACK = "SAVEPOINT op", "RELEASE SAVEPOINT op", "ROLLBACK TO SAVEPOINT op"

Work = Callable[[Connection], Any]
OnCommit = Callable[[int, float], None]
"""Told of every batch: how many changes, how many seconds. Called in the writer's thread; must not raise."""


class _Op:
    """One caller's change: a hot operation or a function, and what became of it."""

    __slots__ = ("error", "future", "value", "work")

    def __init__(self, work: HotOp | Work, future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.value: Any = None
        self.error: BaseException | None = None


class Writer:
    """The only one that changes the database for this process. ``submit`` belongs to the event loop's thread."""

    def __init__(self, driver: Driver, loop: asyncio.AbstractEventLoop, on_commit: OnCommit | None = None) -> None:
        self._driver, self._loop, self._on_commit = driver, loop, on_commit
        self._ops: deque[_Op] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._signalled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self, connection: Connection) -> None:
        """Begin to take work, on *connection*."""
        self._connection = connection
        self._thread.start()

    def submit(self, work: HotOp | Work, *, lazy: bool = False) -> asyncio.Future[Any]:
        """Hand *work* over. The future answers after the commit, with the hot operation's or function's result."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(Unavailable("the store is closed"))
            return future
        self._ops.append(_Op(work, future))
        if not lazy:
            self._wake()
        elif self._timer is None and not self._signalled:
            self._timer = self._loop.call_later(LAZY_SECONDS, self._wake)
        return future

    async def close(self) -> None:
        """Commit what waits and end the thread."""
        if self._closed:
            return
        self._closed = True
        self._wakes.put(False)
        await self._loop.run_in_executor(None, self._thread.join)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._signalled:
            self._signalled = True
            self._wakes.put(True)

    # ---- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            going = self._wakes.get()
            # Lowered before the ops are taken: what comes after that wakes us again.
            self._signalled = False
            while self._ops:
                self._turn()
        if self._connection is not None:
            self._connection.raw.close()

    def _turn(self) -> None:
        batch = [self._ops.popleft() for _ in range(min(len(self._ops), MAX_BATCH))]
        began = time.perf_counter()
        try:
            self._commit(batch)
        except Exception as error:
            _fail(batch, error)
        self._loop.call_soon_threadsafe(_answer, batch)
        if self._on_commit is not None:
            self._on_commit(len(batch), time.perf_counter() - began)

    def _commit(self, batch: list[_Op]) -> None:
        """Run *batch* in one transaction; when an operation spoils it, each in its own."""
        try:
            self._transaction(batch)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, Unavailable) or self._driver.lost(error):
                _fail(batch, self._translated(error))
                return
            for op in batch:
                op.value, op.error = None, None
                self._commit([op])

    def _transaction(self, batch: list[_Op]) -> None:
        """Commit *batch*. A deadlock, or a connection lost before the commit, is tried again: nothing was kept.

        A connection lost during the commit leaves open what happened: Unavailable, never a second run.
        """
        for retry in range(RETRIES):
            connection = self._connected()
            try:
                connection.plain(self._driver.begin)
                self._apply(connection, batch)
            except Exception as error:
                self._undo(connection, error)
                if retry + 1 < RETRIES and (self._driver.passing(error) or self._driver.lost(error)):
                    continue
                raise
            try:
                connection.plain("COMMIT")
                return
            except Exception as error:
                self._undo(connection, error)
                if self._driver.passing(error) and retry + 1 < RETRIES:
                    continue
                raise Unavailable(f"the database did not confirm the commit: {error}") from error

    def _apply(self, connection: Connection, batch: list[_Op]) -> None:
        hot = [op for op in batch if isinstance(op.work, _HOT)]
        if hot:
            self._driver.run_hot(connection, [op.work for op in hot])  # type: ignore[misc]
            for op in hot:
                op.value = op.work.result  # type: ignore[union-attr]
        if len(hot) < len(batch):
            for op in batch:
                if not isinstance(op.work, _HOT):
                    self._apply_one(connection, op)

    def _apply_one(self, connection: Connection, op: _Op) -> None:
        """Run a function. What it refuses is undone alone."""
        connection.plain(_SAVEPOINT)
        op.error = None
        try:
            op.value = op.work(connection)  # type: ignore[operator]
        except BakehouseError as error:
            op.error = error
            connection.plain(_BACK)
        connection.plain(_RELEASE)

    def _undo(self, connection: Connection, error: Exception) -> None:
        """Roll back; drop the connection when it is gone, or does not even do that."""
        try:
            if self._driver.lost(error):
                raise error
            connection.plain("ROLLBACK")
        except Exception:
            self._connection = None
            connection.raw.close()

    def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        for wait in BACKOFF:
            time.sleep(wait)
            try:
                self._connection = self._driver.connect(writer=True)
                return self._connection
            except self._driver.errors as error:
                last = error
        raise Unavailable(f"the database cannot be reached: {last}") from last

    def _translated(self, error: Exception) -> Exception:
        return self._driver.translate(error) if isinstance(error, self._driver.errors) else error


def _fail(batch: list[_Op], error: Exception) -> None:
    for op in batch:
        op.error = error


def _answer(batch: list[_Op]) -> None:
    for op in batch:
        if op.future.done():
            continue
        if op.error is not None:
            op.future.set_exception(op.error)
        else:
            op.future.set_result(op.value)
