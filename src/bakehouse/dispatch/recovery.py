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
from bakehouse.dispatch.running import outcome_of_loss, webhook_of
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

    async def _lease(self) -> None:
        kept = await self.store.heartbeat(self.dispatcher.holder, self.address, self.lease_seconds)
        if not kept:
            log.warning("lease had expired", action="lease_expired", holder=self.dispatcher.holder)
        await self._orphans()

    async def _cancels(self) -> None:
        """Cancels of this server's tasks that came through another one."""
        for task_id in await self.store.cancel_requests(self.dispatcher.holder):
            self.dispatcher.cancel_requested(task_id)

    async def _look_for_work(self) -> None:
        if not self.dispatcher.draining:
            await self._scan()

    async def _scan(self) -> None:
        """Line up waiting tasks that this server does not know of."""
        # Tasks for later are asked for too: this server must wake when they are due.
        for item in await self.store.queued(2**62, SCAN_LIMIT):
            self.dispatcher.backlog.add(item, self.clock.now())
        self.dispatcher.wake()

    async def _orphans(self) -> None:
        sole = self.dispatcher.holder if self.sole else None
        while orphans := await self.store.orphans(ORPHAN_LIMIT, sole=sole):
            await asyncio.gather(*(self.store.write(_after_loss(task, self.clock.now())) for task in orphans))
            log.info("took over tasks", action="tasks_recovered", count=len(orphans))
            await self._scan()
            if len(orphans) < ORPHAN_LIMIT:
                return


def _after_loss(task: Task, now: int) -> TaskWrite:
    """What to write for a task whose server is gone."""
    reason = "its server stopped while it ran"
    outcome = outcome_of_loss(task, reason, "server_lost", retry=True, cancelled=task.cancel_requested_at is not None)
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
