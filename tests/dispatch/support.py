"""A dispatcher over a real store, with an executor that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bakehouse.core.app import Version
from bakehouse.core.clock import SystemClock
from bakehouse.core.executor import Call, Capacity, ExecutorEvent, Finished, Moved, Returned, Sink
from bakehouse.core.ids import new_id
from bakehouse.core.task import Event, Task, TaskStatus
from bakehouse.dispatch.dispatcher import Dispatcher, Helpers
from bakehouse.dispatch.recovery import Recovery
from bakehouse.live.memory import MemoryLive
from bakehouse.service.streams import Streams, Update
from bakehouse.store import open_store
from bakehouse.store.base import CancelResult, Store

LANE = "app/own_a/ver_1/0/0/-"


class ScriptedExecutor:
    """`core.executor.Executor` whose calls go on when the test says so. ``room`` is how many run at a time."""

    def __init__(self, room: int = 8) -> None:
        self.room = room
        self.calls: dict[str, tuple[Call, Sink]] = {}
        self.started: list[str] = []
        self.cancelled: list[tuple[str, str]] = []
        self.stopped = False
        self.refuse: Exception | None = None
        self._wakes: list[Callable[[], None]] = []

    def capacity(self, lane: str) -> Capacity:
        return Capacity(0 if self.stopped else self.room - len(self.calls))

    def on_capacity(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    def start(self, call: Call, sink: Sink) -> None:
        if self.refuse is not None:
            raise self.refuse
        if self.stopped:
            sink(Returned("stopping"))
            return
        self.started.append(call.task.id)
        self.calls[call.task.id] = (call, sink)
        sink(Moved(TaskStatus.RUNNING))

    def send(self, task_id: str, item: dict[str, Any]) -> bool:
        return task_id in self.calls

    def cancel(self, task_id: str, *, grace: float | None = None, reason: str = "cancelled") -> None:
        self.cancelled.append((task_id, reason))
        if task_id in self.calls:
            self.end(task_id, Finished(cancelled=True))

    def end_session(self, session_id: str) -> None:
        """No call here belongs to one."""

    async def start_up(self) -> None:
        """Nothing is left behind by an earlier one."""

    async def shut_down(self, grace: float) -> None:
        self.stopped = True
        for task_id in list(self.calls):
            self.end(task_id, Returned("stopping"))

    def tell(self, task_id: str, event: ExecutorEvent) -> None:
        self.calls[task_id][1](event)

    def end(self, task_id: str, outcome: ExecutorEvent) -> None:
        _, sink = self.calls.pop(task_id)
        sink(outcome)
        for wake in self._wakes:
            wake()


@dataclass
class Server:
    """One server's dispatch: the dispatcher, its live feeds and streams, and what it told about ended tasks."""

    store: Store
    live: MemoryLive
    streams: Streams
    executor: ScriptedExecutor
    clock: SystemClock
    dispatcher: Dispatcher = field(init=False)
    recovery: Recovery = field(init=False)
    finished: list[Task] = field(default_factory=list)
    versions: Callable[[str], Any] | None = None

    async def version(self, version_id: str) -> Version:
        assert self.versions is not None
        return cast(Version, await self.versions(version_id))

    async def queue(self, task: Task | None = None) -> Task:
        """Accept a task and put it in line."""
        task = task or make_task()
        assert await self.store.accept(task, queued_events()) is None
        self.live.open(task).commit(queued_events(), lambda event: [])
        self.dispatcher.accepted(task)
        return task

    async def row(self, task_id: str) -> Task:
        return await self.store.get_task(task_id, None)

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until *holds*, asked in every turn of the loop that follows a change; five seconds at most."""
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 (what it waits for tells nobody)
                await asyncio.sleep(0.002)

    async def ended(self, task_id: str) -> Task:
        await self.until(lambda: any(task.id == task_id for task in self.finished))
        return await self.row(task_id)

    def tell_cancelled(self, results: list[CancelResult]) -> None:
        """Pass on what a cancel found, as the service does."""
        for result in results:
            if result.cancelled_now:
                self.dispatcher.cancelled(result.task)
            elif not result.task.status.terminal:
                self.dispatcher.cancel_requested(result.task.id)

    async def story(self, task: Task, after: int = 0) -> list[Update]:
        """Every update of a stream to its end."""
        async with asyncio.timeout(5):
            return [update async for batch in self.streams.read(task, after) for update in batch]


def make_task(**fields: Any) -> Task:
    now = SystemClock().now()
    task_id = new_id("task")
    values: dict[str, Any] = {
        "id": task_id, "kind": "app", "owner_id": "own_a", "user_id": "usr_a", "root_id": task_id,
        "status": TaskStatus.QUEUED, "lane": LANE, "function": "run", "input": "{}", "created_at": now,
        "updated_at": now, "last_seq": 2,
    }  # fmt: skip
    return Task(**{**values, **fields})


def queued_events() -> list[Event]:
    now = SystemClock().now()
    return [Event(1, now, "status", TaskStatus.RECEIVED, 0), Event(2, now, "status", TaskStatus.QUEUED, 0)]


def make_server(store: Store, *, holder: str = "srv_a", sole: bool = True, room: int = 8) -> Server:
    """A server on *store*. Its recovery duties run when the test calls them."""
    live = MemoryLive()
    executor = ScriptedExecutor(room)
    clock = SystemClock()
    server = Server(store, live, Streams(store, live), executor, clock)

    async def place(task: Task, output: Any, files: Any, partial: bool) -> Any:
        return output

    helpers = Helpers(
        version=server.version,
        known_version=lambda version_id: None,
        place_outputs=place,
        context=lambda task, version: {},
        taken=server.streams.follow,
        finished=server.finished.append,
    )
    server.dispatcher = Dispatcher(
        store=store, live=live, clock=clock, executors={"app": executor}, helpers=helpers, holder=holder,
        log_limit=1 << 20,
    )  # fmt: skip
    executor.on_capacity(server.dispatcher.wake)
    server.recovery = Recovery(server.dispatcher, store, clock, address="http://here", lease_seconds=30, sole=sole)
    return server


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Store]:
    """A SQLite store, checked when the test is over."""
    store = open_store(f"sqlite:///{home / 'bakehouse.db'}")
    await store.open()
    try:
        yield store
        assert await store.check_integrity() == []
    finally:
        await store.close()
