"""The writes of one attempt, in order, each acknowledged once: also when the database was away for a while.

A write that comes back refused or unanswered may or may not have been committed. The ledger then reads the task's
row and decides from its seq: acknowledge what is there, send the rest again, or call the attempt stale. A seq says
nothing once somebody else has written: the row must still be held by this attempt, or show its very last write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from bakehouse.core.errors import BakehouseError, NotFound
from bakehouse.core.task import Task, TaskWrite

MAX_REFUSALS = 3
RETRY_SECONDS = 0.5


class Writes(Protocol):
    """The part of the store that a ledger needs."""

    def write(self, write: TaskWrite, *, lazy: bool) -> asyncio.Future[bool]: ...
    async def read(self, task_id: str) -> Task: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Ledger:
    """Ordered writes of one attempt. ``committed`` is called per write, in order; ``stale`` at most once, last."""

    __slots__ = (
        "_attempt",
        "_committed",
        "_holder",
        "_reconciling",
        "_refusals",
        "_stale",
        "_task_id",
        "_unacked",
        "_writes",
    )

    def __init__(
        self, writes: Writes, task: Task, committed: Callable[[TaskWrite], None], stale: Callable[[], None]
    ) -> None:
        self._writes, self._task_id, self._attempt = writes, task.id, task.attempt
        self._holder = task.lease_holder
        self._committed, self._stale = committed, stale
        self._unacked: deque[tuple[TaskWrite, asyncio.Future[bool] | None]] = deque()
        self._reconciling = False
        self._refusals = 0

    @property
    def busy(self) -> bool:
        """Whether a write is on its way."""
        return bool(self._unacked)

    def submit(self, write: TaskWrite, *, lazy: bool) -> None:
        """Queue *write* behind the earlier ones."""
        if self._reconciling:
            self._unacked.append((write, None))
            return
        future = self._writes.write(write, lazy=lazy)
        self._unacked.append((write, future))
        future.add_done_callback(self._answered)

    def _answered(self, done: asyncio.Future[bool]) -> None:
        if self._reconciling:
            return
        if done.cancelled() or done.exception() is not None or not done.result():
            self._reconciling = True
            self._writes.spawn(self._reconcile())
            return
        self._committed(self._unacked.popleft()[0])

    async def _reconcile(self) -> None:
        pending = [future for _, future in self._unacked if future is not None]
        if pending:
            await asyncio.wait(pending)
        row = await self._row()
        if row is None or not self._is_ours(row):
            self._stale()
            return
        while self._unacked and self._unacked[0][0].events[-1].seq <= row.last_seq:
            self._committed(self._unacked.popleft()[0])
        self._refusals += 1
        fits = not self._unacked or self._unacked[0][0].events[0].seq == row.last_seq + 1
        if not fits or (self._unacked and row.status.terminal) or self._refusals > MAX_REFUSALS:
            self._stale()
            return
        again, self._unacked = self._unacked, deque()
        self._reconciling = False
        for write, _ in again:
            self.submit(write, lazy=False)

    def _is_ours(self, row: Task) -> bool:
        """Whether nobody but this attempt has written to *row* since it was claimed."""
        if row.attempt != self._attempt:
            return False
        if row.lease_holder == self._holder:
            return True
        # Given up: by our own last write, or by another server that took the task for lost. Both may have the seq.
        last = self._unacked[-1][0].events[-1] if self._unacked else None
        return last is not None and (row.last_seq, row.updated_at) == (last.seq, last.at)

    async def _row(self) -> Task | None:
        """The task's row as soon as the database answers; None when it was deleted."""
        while True:
            try:
                return await self._writes.read(self._task_id)
            except NotFound:
                return None
            except BakehouseError:
                # The database is away. The lease runs out meanwhile; what it says when it is back decides.
                await asyncio.sleep(RETRY_SECONDS)
