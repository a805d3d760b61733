"""The dispatcher: claims waiting tasks for the executors that have room, and sees every attempt to its end.

Push to wake, poll to be right: an accepted task is handed over in memory; a scan of the store finds those that
another server left behind. A claim is a conditional update, so two servers never run the same attempt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from bakehouse.core.app import Version
from bakehouse.core.clock import SECOND, Clock
from bakehouse.core.errors import BakehouseError, NotFound
from bakehouse.core.executor import Call, Capacity, Executor, OutputFile
from bakehouse.core.task import Event, QueuedTask, Task, TaskStatus, TaskWrite
from bakehouse.dispatch.backlog import Backlog, Lane
from bakehouse.dispatch.logs import texts
from bakehouse.dispatch.running import Outcome, Running
from bakehouse.live.base import Feed
from bakehouse.live.memory import MemoryLive
from bakehouse.store.base import Store

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.005
SNAPSHOT_SECONDS = 0.25
CLAIM_BATCH = 256


@dataclass(frozen=True, slots=True)
class Helpers:
    """What the dispatcher is given by wiring."""

    version: Callable[[str], Awaitable[Version]]
    known_version: Callable[[str], Version | None]
    place_outputs: Callable[[Task, Any, list[OutputFile], bool], Awaitable[Any]]
    context: Callable[[Task, Version | None], dict[str, Any]]
    taken: Callable[[Feed], None]
    finished: Callable[[Task], None] = field(default=lambda task: None)


class Dispatcher:
    """See the module's text. ``holder`` names this server in leases."""

    def __init__(
        self,
        *,
        store: Store,
        live: MemoryLive,
        clock: Clock,
        executors: dict[str, Executor],
        helpers: Helpers,
        holder: str,
        log_limit: int,
    ) -> None:
        self.store, self.live, self.clock, self.holder = store, live, clock, holder
        self.executors, self.helpers = executors, helpers
        self.backlog = Backlog()
        self.running: dict[str, Running] = {}
        self.draining = False
        self._log_limit = log_limit
        self._claiming: Counter[Lane] = Counter()
        self._early_cancels: set[str] = set()
        self._lettered: set[str] = set()  # tasks that may have inbox items
        self._dirty: set[Running] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._pump_scheduled = False
        self._work: set[asyncio.Task[None]] = set()
        self._no_more = asyncio.Event()
        self._stopping = False

    # ---- the service hands tasks over ----------------------------------------------------------------------

    def reserve(self, kind: str, lane: str, owner_id: str) -> str | None:
        """A place for a task that is about to be accepted, so that it is accepted and claimed in one commit.

        The holder's name when *lane* has room and nobody waits, else None. Follow with ``start`` or ``release``.
        """
        if self.draining or not self.backlog.idle():
            return None
        key = (kind, lane)
        executor = self.executors.get(kind)
        if executor is None:
            return None
        room = executor.capacity(lane)
        if room.ready + room.prefetch - self._claiming[key] <= 0:
            return None
        self._claiming[key] += 1
        self.backlog.started(owner_id)
        return self.holder

    def release(self, kind: str, lane: str, owner_id: str) -> None:
        """Give a reserved place back: the task was not accepted."""
        self._claimed((kind, lane))
        self.backlog.ended(owner_id)

    def accepted(self, task: Task) -> None:
        """*task* waits in the store: put it in line."""
        self.live.open(task)
        self._enqueue(task)
        self.wake()

    def start(self, task: Task) -> None:
        """Run a task that was accepted with a reserved place."""
        self._claimed((task.kind, task.lane))
        self.live.open(task)
        self._start(task)

    def cancel_requested(self, task_id: str) -> None:
        """A cancel of a task that has a holder was recorded."""
        running = self.running.get(task_id)
        if running is not None:
            running.cancel()
        else:
            self._early_cancels.add(task_id)

    def inbox_filled(self, task_id: str) -> None:
        """An item was stored in the inbox of a task that waits or runs here: hand it over when it runs."""
        self._lettered.add(task_id)
        running = self.running.get(task_id)
        if running is not None and running.status >= TaskStatus.RUNNING:
            self.spawn(self._deliver(running))

    def forget(self, task_id: str) -> None:
        """A waiting task ended without running."""
        self.backlog.discard(task_id)

    def waiting(self, owner_id: str | None = None) -> int:
        """Tasks in line here, of all owners or of one."""
        return len(self.backlog) if owner_id is None else self.backlog.count(owner_id)

    def states(self) -> dict[str, float]:
        """How many tasks this server runs, by state."""
        counts: Counter[str] = Counter(running.status.text for running in self.running.values())
        return {**counts, TaskStatus.QUEUED.text: len(self.backlog)}

    # ---- claim and start -----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look for tasks to start, once, soon."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _capacity(self, lane: Lane) -> Capacity:
        executor = self.executors.get(lane[0])
        if executor is None:
            return Capacity(0)
        room = executor.capacity(lane[1])
        return Capacity(room.ready - self._claiming[lane], room.prefetch)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self.draining:
            return
        self._arm_due(self.backlog.due(self.clock.now()))
        if self.backlog.idle():
            return
        batch = self.backlog.take(self._capacity, CLAIM_BATCH)
        if batch:
            for item in batch:
                self._claiming[(item.kind, item.lane)] += 1
            self.spawn(self._claim(batch))

    def _arm_due(self, due: int | None) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        if due is not None:
            delay = max(0.0, (due - self.clock.now()) / SECOND)
            self._due_timer = asyncio.get_running_loop().call_later(delay, self.wake)

    async def _claim(self, batch: list[QueuedTask]) -> None:
        try:
            claimed = {task.id: task for task in await self.store.claim([item.id for item in batch], self.holder)}
        except BakehouseError as error:
            log.error("claim failed", action="claim_failed", error=error.detail)
            claimed = {}
            asyncio.get_running_loop().call_later(1.0, self._requeue_unclaimed, batch)
        for item in batch:
            self._claimed((item.kind, item.lane))
            task = claimed.get(item.id)
            if task is None:
                self.backlog.ended(item.owner_id)
                self._taken(item.id)
                continue
            feed = self.live.open(task)
            events = await self._missed(task, feed.task.last_seq)
            feed.task = task
            feed.commit(events, lambda event: texts(event.data))
            self._start(task)
        self.wake()

    def _taken(self, task_id: str) -> None:
        """Another server claimed it, or it ended: whoever watches it here needs the store's news."""
        feed = self.live.latest(task_id)
        if feed is not None and not feed.task.status.terminal:
            feed.remote = True
            self.helpers.taken(feed)

    async def _missed(self, task: Task, shown: int) -> list[Event]:
        """The events that the feed has not shown yet: the claim's own, and what happened elsewhere before."""
        if task.last_seq == shown + 1:
            return [Event(task.last_seq, task.updated_at, "status", task.status, task.attempt)]
        return await self.store.events(task.id, shown) if task.last_seq > shown else []

    def _requeue_unclaimed(self, batch: list[QueuedTask]) -> None:
        for item in batch:
            self.backlog.add(item, self.clock.now(), front=True)
        self.wake()

    def _claimed(self, lane: Lane) -> None:
        self._claiming[lane] -= 1
        if self._claiming[lane] <= 0:
            del self._claiming[lane]

    def _start(self, task: Task) -> None:
        """Hand a claimed task to its executor. Its version is in memory, but for a first call after a start."""
        feed = self.live.open(task)
        running = Running(self, task, feed, self.executors[task.kind], self._log_limit)
        self.running[task.id] = running
        version = self.helpers.known_version(task.version_id) if task.version_id else None
        if version is None and task.version_id is not None:
            self.spawn(self._run_version(running, task.version_id))
        else:
            self._run(running, version)

    async def _run_version(self, running: Running, version_id: str) -> None:
        try:
            version = await self.helpers.version(version_id)
        except NotFound:
            running.end(Outcome(TaskStatus.FAILED, error="its app version was deleted", code="version_gone"))
        else:
            self._run(running, version)

    def _run(self, running: Running, version: Version | None) -> None:
        task = running.task
        call = Call(task, task.attempt, version, self.helpers.context(task, version))
        running.executor.start(call, running.sink)
        if task.id in self._early_cancels or task.cancel_requested_at is not None:
            self._early_cancels.discard(task.id)
            running.cancel()

    # ---- the Desk of running attempts ----------------------------------------------------------------------

    def write(self, write: TaskWrite, *, lazy: bool) -> asyncio.Future[bool]:
        return self.store.write(write, lazy=lazy)

    async def read(self, task_id: str) -> Task:
        return await self.store.get_task(task_id, None)

    def dirty(self, running: Running) -> None:
        self._dirty.add(running)
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        dirty, self._dirty = self._dirty, set()
        for running in dirty:
            running.flush()
            if running.waiting:
                self.dirty(running)

    def begun(self, running: Running) -> None:
        """The attempt entered RUNNING: it gets what its inbox holds, from the start if an earlier attempt was lost."""
        if running.task.id in self._lettered or running.task.attempt > 1:
            self.spawn(self._deliver(running))

    async def _deliver(self, running: Running) -> None:
        task_id = running.task.id
        for item in await self.store.inbox(task_id, running.inbox_seen):
            # Two deliveries may overlap; the seq decides, and a child that cannot take more now is asked again later.
            if item.seq == running.inbox_seen + 1:
                content = {"seq": item.seq, "kind": item.kind, "content": orjson.loads(item.data)}
                if not running.executor.send(task_id, content):
                    return
                running.inbox_seen = item.seq

    async def place_outputs(self, task: Task, output: Any, files: list[OutputFile], *, partial: bool) -> Any:
        return await self.helpers.place_outputs(task, output, files, partial)

    def lost_server(self) -> bool:
        return self._stopping

    def ended(self, running: Running, *, requeued: bool) -> None:
        task = running.task
        self.running.pop(task.id, None)
        self.backlog.ended(task.owner_id)
        if requeued:
            self._enqueue(task, front=True)
        else:
            self._lettered.discard(task.id)
            self.live.close(task.id)
            self.helpers.finished(task)
        self._left()

    def stale(self, running: Running) -> None:
        """A write of this attempt was refused or failed: somebody else decides about the task now."""
        task = running.task
        if self.running.get(task.id) is not running:
            return
        log.warning("attempt is stale", action="attempt_stale", task=task.id, attempt=task.attempt)
        del self.running[task.id]
        self.backlog.ended(task.owner_id)
        running.executor.cancel(task.id, grace=0.0, reason="stale")
        self._taken(task.id)
        self._left()

    def _left(self) -> None:
        if self.draining and not self.running:
            self._no_more.set()
        self.wake()

    def _enqueue(self, task: Task, *, front: bool = False) -> None:
        item = QueuedTask(task.id, task.kind, task.owner_id, task.lane, task.run_at, task.created_at)
        self.backlog.add(item, self.clock.now(), front=front)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* beside the loop; what it raises is logged, never lost."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatch work failed", action="dispatch_error", exc_info=task.exception())

    # ---- snapshots, drain ----------------------------------------------------------------------------------

    async def save_snapshots(self) -> None:
        """Write the newest live state of every attempt that has changed since the last call."""
        rows = []
        for running in self.running.values():
            if running.snapshot_dirty:
                running.snapshot_dirty = False
                state = {"progress": running.feed.progress, "partial_output": running.feed.partial}
                rows.append((running.task.id, running.task.attempt, orjson.dumps(state).decode()))
        if rows:
            await self.store.save_snapshots(rows)

    async def drain(self, grace: float) -> None:
        """Take no more tasks; let running ones finish for *grace* seconds; hand the others back to the queue."""
        self.draining = True
        self.live.wake_all()
        if self.running:
            try:
                await asyncio.wait_for(self._no_more.wait(), grace)
            except TimeoutError:
                log.info("handing tasks back", action="drain_timeout", tasks=len(self.running))
        self._stopping = True
        for executor in self.executors.values():
            await executor.shut_down(0.0)
        if self.running:  # each outcome ends with a durable write
            await self._no_more.wait()
        if self._work:
            await asyncio.wait(self._work)
