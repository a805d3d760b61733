"""Leases and what follows when one is lost: heartbeats, orphaned tasks, cancels that came through another server.

This is the part that polls, so that the rest may rely on pushes and still be right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import structlog

from bakehouse.core.clock import Clock
from bakehouse.core.errors import BakehouseError
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.dispatch.dispatcher import SNAPSHOT_SECONDS, Dispatcher
from bakehouse.dispatch.running import Outcome, outcome_of_loss, webhook_of
from bakehouse.store.base import Store

log = structlog.get_logger(__name__)

SCAN_LIMIT = 5000
ORPHAN_LIMIT = 500


class Recovery:
    """Background duties of one server. ``sole``: the data directory is locked to it; nobody else holds a lease."""

    def __init__(
        self, dispatcher: Dispatcher, store: Store, clock: Clock, *, address: str, lease_seconds: float, sole: bool
    ) -> None:
        self.dispatcher, self.store, self.clock = dispatcher, store, clock
        self.address, self.lease_seconds, self.sole = address, lease_seconds, sole
        self._unknown: set[tuple[str, int]] = set()
        self._unheld: set[tuple[str, int]] = set()

    async def start_up(self) -> None:
        """Register, take back what a dead server held, and line up what waits."""
        await self.store.heartbeat(self.dispatcher.holder, self.address, self.lease_seconds)
        await self._orphans()
        await self._scan()

    async def run(self) -> None:
        """The duties, each at its pace, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(self.lease_seconds / 3, self._lease))
            group.create_task(self._every(SNAPSHOT_SECONDS, self.dispatcher.save_snapshots))
            if not self.sole:
                group.create_task(self._every(0.25, self._cancels))
                group.create_task(self._every(1.0, self._look_for_work))

    async def _every(self, seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await duty()
            except BakehouseError as error:
                log.error("duty failed", action="duty_failed", duty=duty.__name__, error=error.detail)
            except Exception:  # a fault of one duty must not end the others: the lease is one of them
                log.exception("duty failed", action="duty_failed", duty=duty.__name__)

    async def _lease(self) -> None:
        kept = await self.store.heartbeat(self.dispatcher.holder, self.address, self.lease_seconds)
        if not kept:
            log.warning("lease had expired", action="lease_expired", holder=self.dispatcher.holder)
        await self._orphans()
        await self._strays()
        if self.sole:
            await self._look_for_work()

    async def _cancels(self) -> None:
        """Cancels of this server's tasks that came through another one."""
        for task_id in await self.store.cancel_requests(self.dispatcher.holder):
            self.dispatcher.cancel_requested(task_id)

    async def _look_for_work(self) -> None:
        if not self.dispatcher.draining:
            await self._scan()

    async def _scan(self) -> None:
        """Line up waiting tasks that this server does not know of; drop those that others took or ended."""
        known = self.dispatcher.backlog.ids()
        # Tasks for later are asked for too: this server must wake when they are due.
        waiting = await self.store.queued(2**62, SCAN_LIMIT)
        self.dispatcher.line_up(waiting, known if len(waiting) < SCAN_LIMIT else set())

    async def _strays(self) -> None:
        """Hand back tasks that this server holds and does not know: the answer to their claim was lost on its way.

        Only those that were unknown at the last look too: a claim may be on its way right now.
        """
        held = await self.store.held(self.dispatcher.holder)
        self._give_up_unheld(set(held))
        unknown = {(task_id, attempt) for task_id, attempt in held if not self.dispatcher.knows(task_id)}
        strays, self._unknown = unknown & self._unknown, unknown
        for task_id, attempt in sorted(strays):
            task = await self.store.get_task(task_id, None)
            if task.attempt == attempt and task.lease_holder == self.dispatcher.holder:
                await self.store.write(_after_loss(task, self.clock.now(), "its claim was lost", counted=False))
        if strays:
            log.warning("handed back lost claims", action="strays_returned", count=len(strays))
            await self._scan()

    def _give_up_unheld(self, held: set[tuple[str, int]]) -> None:
        """End attempts that were taken from this server while it could not renew its lease, though they write nothing.

        At the second look only: an attempt may have begun after the first one was taken.
        """
        running = {(r.task.id, r.task.attempt): r for r in self.dispatcher.running.values() if not r.closing}
        unheld = running.keys() - held
        for key in unheld & self._unheld:
            running[key].abandon()
        self._unheld = unheld

    async def _orphans(self) -> None:
        sole = self.dispatcher.holder if self.sole else None
        while orphans := await self.store.orphans(ORPHAN_LIMIT, sole=sole):
            await asyncio.gather(*(self.store.write(_after_loss(task, self.clock.now())) for task in orphans))
            log.info("took over tasks", action="tasks_recovered", count=len(orphans))
            await self._scan()
            if len(orphans) < ORPHAN_LIMIT:
                return


def _after_loss(
    task: Task, now: int, reason: str = "its server stopped while it ran", *, counted: bool = True
) -> TaskWrite:
    """What to write for a task whose server is gone. Not ``counted``: the attempt never began."""
    cancelled = task.cancel_requested_at is not None
    outcome = outcome_of_loss(task, reason, "server_lost", retry=True, cancelled=cancelled)
    if not counted and not cancelled:
        outcome = Outcome(TaskStatus.QUEUED, reason=reason)
    data = orjson.dumps({"reason": reason}).decode()
    event = Event(task.last_seq + 1, now, "status", outcome.status, task.attempt, data)
    requeue = outcome.status == TaskStatus.QUEUED
    return TaskWrite(
        task.id,
        task.attempt,
        (event,),
        status=outcome.status,
        error=outcome.error,
        error_code=outcome.code,
        requeue=requeue,
        lost=outcome.lost,
        deliver=None if requeue else webhook_of(task),
    )
