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
from bakehouse.core.executor import Call, Capacity, Executor, OutputFile, Returned
from bakehouse.core.task import Event, QueuedTask, Task, TaskStatus, TaskWrite
from bakehouse.dispatch.backlog import Backlog, Lane
from bakehouse.dispatch.running import Outcome, Running
from bakehouse.live.base import Feed
from bakehouse.live.memory import MemoryLive
from bakehouse.store.base import Store

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.005
SNAPSHOT_SECONDS = 0.25
DELIVER_AGAIN_SECONDS = 0.1
CLAIM_BATCH = 256
RETRY_SECONDS = 0.5

EARLY_SECONDS = 60.0
"""How long a cancel waits for a task that is on its way here; it may have ended instead."""

HAND_BACK_SECONDS = 10.0
"""How long a drain waits for the database to take what is handed back. Leases that run out do the rest."""


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
        self._arriving: set[str] = set()  # tasks whose claim is on its way
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
        elif task_id in self.backlog:  # its attempt was lost meanwhile, and nobody may claim it any more
            self.spawn(self._cancel_waiting(task_id))
        else:
            self._early_cancels.add(task_id)
            asyncio.get_running_loop().call_later(EARLY_SECONDS, self._early_cancels.discard, task_id)

    async def _cancel_waiting(self, task_id: str) -> None:
        for result in await self.store.request_cancel(task_id, None, self.clock.now()):
            if result.cancelled_now:
                self.cancelled(result.task)

    def inbox_filled(self, task_id: str) -> None:
        """An item was stored in the inbox of a task that waits or runs here: hand it over when it runs."""
        self._lettered.add(task_id)
        running = self.running.get(task_id)
        if running is not None and running.status >= TaskStatus.RUNNING:
            self.spawn(self._deliver(running))

    def cancelled(self, task: Task) -> None:
        """A waiting task was cancelled in the store: show it, as its end."""
        self.backlog.discard(task.id)
        self._lettered.discard(task.id)
        feed = self.live.latest(task.id)
        if feed is not None and (feed.remote or task.last_seq != feed.task.last_seq + 1):
            self._taken(task.id)  # another server wrote more than the feed has shown
        elif feed is not None:
            feed.task = task
            feed.commit([_last_event(task)], lambda event: [])
            self.live.close(task.id)
        self.helpers.finished(task)

    def line_up(self, waiting: list[QueuedTask], known: set[str]) -> None:
        """Make the line agree with the store's, which is *waiting*; *known* stood in line here before it was asked."""
        for item in waiting:
            if not self.knows(item.id):
                self.backlog.add(item, self.clock.now())
        for task_id in known.difference(item.id for item in waiting):
            if task_id in self.backlog:
                self.backlog.discard(task_id)
                self._taken(task_id)
        self.wake()

    def knows(self, task_id: str) -> bool:
        """Whether the task runs here, or is about to."""
        return task_id in self.running or task_id in self._arriving

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
        return Capacity(room.ready - self._claiming[lane], room.prefetch, room.bound)

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
                self._arriving.add(item.id)
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
            self._unclaimed(batch)
            return
        for item in batch:
            self._claimed((item.kind, item.lane))
            self._arriving.discard(item.id)
            task = claimed.get(item.id)
            if task is None:
                self.backlog.ended(item.owner_id)
                self._taken(item.id)
            else:
                self._begin(task)
        self.wake()

    def _unclaimed(self, batch: list[QueuedTask]) -> None:
        for item in batch:
            self._claimed((item.kind, item.lane))
            self._arriving.discard(item.id)
            self.backlog.ended(item.owner_id)
        asyncio.get_running_loop().call_later(1.0, self._requeue_unclaimed, batch)

    def _begin(self, task: Task) -> None:
        """Start a claimed task, and show what its feed has not shown yet."""
        feed = self.live.open(task)
        if task.last_seq == feed.task.last_seq + 1:
            feed.task = task
            feed.commit([_last_event(task)], lambda event: [])
        elif task.last_seq > feed.task.last_seq:
            feed.skip(task)
        else:
            feed.task = task
        self._start(task)

    def _taken(self, task_id: str) -> None:
        """Another server claimed it, or it ended: whoever watches it here needs the store's news."""
        if self.knows(task_id):
            return  # a late look at the store: it has come here since
        feed = self.live.latest(task_id)
        if feed is not None and not feed.task.status.terminal:
            feed.remote = True
            self.helpers.taken(feed)

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
        except BakehouseError as error:
            log.error("version not read", action="version_failed", task=running.task.id, error=error.detail)
            await asyncio.sleep(RETRY_SECONDS)
            running.sink(Returned("its app version could not be read"))
        else:
            self._run(running, version)

    def _run(self, running: Running, version: Version | None) -> None:
        task = running.task
        early = task.id in self._early_cancels or task.cancel_requested_at is not None
        self._early_cancels.discard(task.id)
        if running.closing:
            return  # given up while its version was read
        if early or running.cancelled:
            running.end(Outcome(TaskStatus.CANCELLED))
            return
        try:
            call = Call(task, task.attempt, version, self.helpers.context(task, version))
            running.executor.start(call, running.sink)
        except Exception as error:  # not the call's fault, but the call must end
            log.exception("executor failed", action="executor_error", task=task.id)
            running.end(Outcome(TaskStatus.FAILED, error=f"it could not be started: {error}", code="start_failed"))

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
                    asyncio.get_running_loop().call_later(DELIVER_AGAIN_SECONDS, self._deliver_again, running)
                    return
                running.inbox_seen = item.seq

    def _deliver_again(self, running: Running) -> None:
        if self.running.get(running.task.id) is running:
            self.spawn(self._deliver(running))

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
            if running.cancelled:
                self.spawn(self._cancel_waiting(task.id))
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
        self._lettered.discard(task.id)
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
        self.live.release(keep=self.running)  # what waits does not begin here any more
        if not await self._emptied(grace):
            log.info("handing tasks back", action="drain_timeout", tasks=len(self.running))
        self._stopping = True
        for executor in self.executors.values():
            await executor.shut_down(0.0)
        # Each outcome ends with a durable write; when the database is away, they are found by their lost lease.
        if not await self._emptied(HAND_BACK_SECONDS):
            log.error("tasks not handed back", action="drain_failed", tasks=len(self.running))
        self.live.release()
        if self._work:
            _, left = await asyncio.wait(self._work, timeout=HAND_BACK_SECONDS)
            for work in left:
                work.cancel()
            if left:
                await asyncio.wait(left)

    async def _emptied(self, seconds: float) -> bool:
        """Wait until nothing runs here, at most *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                while self.running:
                    self._no_more.clear()
                    await self._no_more.wait()
        except TimeoutError:
            return False
        return True


def _last_event(task: Task) -> Event:
    """The status move that *task*'s row shows."""
    return Event(task.last_seq, task.updated_at, "status", task.status, task.attempt)
