"""One attempt of one task, from its claim to its outcome: what the executor reports becomes durable events.

Status moves and log lines are gathered for a few milliseconds and written together, so that a short task costs one
commit at its end. Nothing durable is shown to readers before it is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from bakehouse.core.clock import Clock
from bakehouse.core.errors import BakehouseError
from bakehouse.core.executor import (
    Delta,
    Executor,
    ExecutorEvent,
    Failure,
    Finished,
    Logged,
    Lost,
    Moved,
    OutputFile,
    Progressed,
    Returned,
    Sent,
    Yielded,
)
from bakehouse.core.task import LEGAL, Event, Task, TaskStatus, TaskWrite
from bakehouse.dispatch.ledger import Ledger
from bakehouse.dispatch.logs import LogBuffer, texts
from bakehouse.live.base import Feed

LOG_BATCH_BYTES = 60 * 1024
SENT_BATCH_BYTES = 16 * 1024
"""Messages of one event; a stream's line repeats them, and some readers cannot take long lines."""
TERMINAL_ERROR_CHARS = 2000


class Desk(Protocol):
    """What a running attempt needs of its dispatcher."""

    clock: Clock

    def write(self, write: TaskWrite, *, lazy: bool) -> asyncio.Future[bool]: ...
    async def read(self, task_id: str) -> Task: ...
    def dirty(self, running: Running) -> None: ...
    def begun(self, running: Running) -> None: ...
    async def place_outputs(self, task: Task, output: Any, files: list[OutputFile], *, partial: bool) -> Any: ...
    def ended(self, running: Running, *, requeued: bool) -> None: ...
    def stale(self, running: Running) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...
    def lost_server(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ends: the task's next status and what is stored with it."""

    status: TaskStatus
    output: str | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None
    lost: bool = False


def outcome_of_loss(task: Task, reason: str, code: str, *, retry: bool, cancelled: bool) -> Outcome:
    """What follows a lost attempt: cancelled if that was asked, another attempt while retries last, else failure."""
    if cancelled:
        return Outcome(TaskStatus.CANCELLED, reason=reason)
    if retry and task.failures < task.retries:
        return Outcome(TaskStatus.QUEUED, reason=reason, lost=True)
    tries = f" (attempt {task.attempt}, no retries left)" if retry and task.retries else ""
    return Outcome(TaskStatus.FAILED, error=f"{reason}{tries}"[:TERMINAL_ERROR_CHARS], code=code)


class Running:
    """The state of one attempt. Its ``sink`` is called by the executor, in the event loop, in order."""

    __slots__ = (
        "_closing",
        "_deadline",
        "_ledger",
        "_logs",
        "_logs_since",
        "_outcome",
        "_partials",
        "_sent",
        "_sent_before",
        "_sent_bytes",
        "_seq",
        "_snapshot_waits",
        "_unwritten",
        "cancelled",
        "deadline_hit",
        "desk",
        "executor",
        "feed",
        "inbox_seen",
        "snapshot_dirty",
        "status",
        "task",
    )

    def __init__(self, desk: Desk, task: Task, feed: Feed, executor: Executor, log_limit: int) -> None:
        self.desk = desk
        self.task = task
        self.feed = feed
        self.executor = executor
        self.status = task.status
        self.snapshot_dirty = False
        self.inbox_seen = 0
        self.deadline_hit = False
        self._seq = task.last_seq
        self._unwritten: list[Event] = []
        self._ledger = Ledger(desk, task, self._committed, self.abandon)
        self._outcome: Outcome | None = None
        self._snapshot_waits = False
        self._logs = LogBuffer(log_limit)
        self._logs_since = 0.0
        self._sent: list[Any] = []
        self._sent_before = self._sent_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._closing = False
        self._partials = 0
        self.cancelled = False

    # ---- what the executor says ---------------------------------------------------------------------------

    def sink(self, event: ExecutorEvent) -> None:
        """Take one event of the executor."""
        _HANDLERS[type(event)](self, event)

    def _moved(self, event: Moved) -> None:
        if event.status not in LEGAL[self.status] or self.status == TaskStatus.CANCELLING:
            return  # a warm start skips states; while cancelling only the outcome counts
        self._move(event.status)
        if event.status == TaskStatus.RUNNING:
            self.desk.begun(self)
            if self.task.timeout:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(self.task.timeout, self._deadline_passed)
        self.desk.dirty(self)

    def _move(self, status: TaskStatus, data: str | None = None) -> None:
        self.status = status
        self._append("status", data)

    def _append(self, kind: str, data: str | None) -> None:
        self._seq += 1
        self._unwritten.append(Event(self._seq, self.desk.clock.now(), kind, self.status, self.task.attempt, data))

    def _logged(self, event: Logged) -> None:
        if not self._logs.waiting_bytes:
            self._logs_since = self.desk.clock.monotonic()
        self._logs.add(event.stream, event.lines, event.level)
        if self._logs.waiting_bytes >= LOG_BATCH_BYTES:
            self.flush(logs=True)
        else:
            self.desk.dirty(self)

    def _progressed(self, event: Progressed) -> None:
        self.feed.progress = {"current": event.current, "total": event.total}
        if event.message is not None:
            self.feed.progress["message"] = event.message
        self._show()

    def _yielded(self, event: Yielded) -> None:
        self._partials += 1
        if event.files:
            self.desk.spawn(self._place_partial(event, self._partials))
        else:
            self.feed.partial = event.output
            self._show()

    async def _place_partial(self, event: Yielded, number: int) -> None:
        output = await self.desk.place_outputs(self.task, event.output, event.files, partial=True)
        if not self._closing and number == self._partials:  # a newer one may have been shown meanwhile
            self.feed.partial = output
            self._show()

    def _sent_more(self, event: Sent) -> None:
        self._sent += event.messages
        self._sent_bytes += sum(map(_characters, event.messages))
        if self._sent_bytes >= SENT_BATCH_BYTES:
            self.flush()
        else:
            self.desk.dirty(self)

    def _append_sent(self) -> None:
        """Messages that wait become an event. All that one flush finds are one: a batch is never cut inside."""
        if self._sent:
            told = {"first": self._sent_before, "messages": self._sent}
            self._append("sent", orjson.dumps(told).decode())
            self._sent_before += len(self._sent)
            self._sent, self._sent_bytes = [], 0

    def _delta(self, event: Delta) -> None:
        self.feed.delta(event.delta, self.desk.clock.now())

    def _show(self) -> None:
        """Publish the newest snapshot, after the status moves that came before it."""
        self.snapshot_dirty = True
        if self._unwritten or self._ledger.busy:
            self._snapshot_waits = True
        else:
            self.feed.progressed(self.desk.clock.now())
        self.desk.dirty(self)

    # ---- cancel and deadline ------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Somebody asked for a cancel. Repeatable."""
        if self.cancelled:
            return
        self.cancelled = True
        if self._closing:
            return  # should the task wait for another attempt, the dispatcher cancels it there
        self._move(TaskStatus.CANCELLING)
        self.flush()
        self.executor.cancel(self.task.id)

    def _deadline_passed(self) -> None:
        if self.cancelled:
            return  # it is being stopped already, and that is how it will have ended
        self.deadline_hit = True
        self._logs.add("system", [f"deadline of {self.task.timeout:g} s passed: stopping"])
        self.executor.cancel(self.task.id, grace=2.0, reason="deadline")

    # ---- writing ------------------------------------------------------------------------------------------

    def flush(self, *, logs: bool = False) -> None:
        """Write what has gathered. ``logs``: log lines too, however few."""
        if self._closing:
            return
        if self._logs.waiting_bytes and (logs or self.desk.clock.monotonic() - self._logs_since > 0.025):
            for batch in self._logs.take():
                self._append("log", batch)
        self._append_sent()
        if self._unwritten:
            events, self._unwritten = tuple(self._unwritten), []
            self._ledger.submit(TaskWrite(self.task.id, self.task.attempt, events), lazy=True)

    @property
    def waiting(self) -> bool:
        """Whether there is something left for a later flush."""
        return not self._closing and bool(self._unwritten or self._logs.waiting_bytes or self._sent)

    def _committed(self, write: TaskWrite) -> None:
        """A write is durable: show it. The last one ends the attempt."""
        task, outcome = self.task, self._outcome
        last = write.events[-1]
        task.status, task.last_seq, task.updated_at = last.status, last.seq, last.at
        if task.started_at is None:
            task.started_at = next((e.at for e in write.events if e.status == TaskStatus.RUNNING), None)
        if outcome is not None and self._seq == last.seq:
            task.output, task.error, task.error_code = outcome.output, outcome.error, outcome.code
            task.failures += outcome.lost
            task.lease_holder = None
            if outcome.status.terminal:
                task.finished_at = last.at
        self.feed.commit(list(write.events), lambda event: texts(event.data))
        if outcome is not None and self._seq == last.seq:
            self.desk.ended(self, requeued=outcome.status == TaskStatus.QUEUED)
        elif self._snapshot_waits and not self._closing and not self._ledger.busy:
            self._snapshot_waits = False
            self.feed.progressed(self.desk.clock.now())

    @property
    def closing(self) -> bool:
        """Whether the attempt has its outcome, or was given up."""
        return self._closing

    def abandon(self) -> None:
        """Somebody else decides about the task now: write nothing more."""
        self._closing = True
        self._stop_deadline()
        self.desk.stale(self)

    # ---- the outcome --------------------------------------------------------------------------------------

    def _finished(self, event: Finished) -> None:
        if self._closing:
            for file in event.files:
                file.path.unlink(missing_ok=True)
        elif event.files and event.failure is None and not event.cancelled:
            self._stop_deadline()
            self._move(TaskStatus.UPLOADING)
            self.flush(logs=True)
            self.desk.spawn(self._upload(event))
        else:
            self.end(self._judge(event))

    async def _upload(self, event: Finished) -> None:
        try:
            output = await self.desk.place_outputs(self.task, event.output, event.files, partial=False)
        except (OSError, BakehouseError) as error:
            self.end(
                Outcome(TaskStatus.FAILED, error=f"an output file could not be stored: {error}", code="output_file")
            )
        else:
            self.end(self._judge(Finished(output)))

    def _judge(self, event: Finished) -> Outcome:
        if self.deadline_hit and (event.cancelled or event.failure is not None):
            return self._deadline_outcome()
        if event.cancelled:
            return Outcome(TaskStatus.CANCELLED)
        if event.failure is not None:
            return self._failed(event.failure)
        return Outcome(TaskStatus.COMPLETED, output=orjson.dumps(event.output).decode())

    def _failed(self, failure: Failure) -> Outcome:
        if failure.traceback:
            self._logs.add("stderr", failure.traceback.rstrip("\n").split("\n"))
        return Outcome(TaskStatus.FAILED, error=failure.message[:TERMINAL_ERROR_CHARS], code=failure.code)

    def _deadline_outcome(self) -> Outcome:
        return Outcome(
            TaskStatus.FAILED,
            error=f"took longer than its deadline of {self.task.timeout:g} s",
            code="deadline_exceeded",
        )

    def _lost(self, event: Lost) -> None:
        if self.desk.lost_server() and not self.cancelled:
            self.end(Outcome(TaskStatus.QUEUED, reason="the server is stopping"))
        elif self.deadline_hit:
            self.end(self._deadline_outcome())
        else:
            self._logs.add("system", [event.reason])
            self.end(outcome_of_loss(self.task, event.reason, event.code, retry=event.retry, cancelled=self.cancelled))

    def _returned(self, event: Returned) -> None:
        self.end(Outcome(TaskStatus.CANCELLED) if self.cancelled else Outcome(TaskStatus.QUEUED, reason=event.reason))

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def end(self, outcome: Outcome) -> None:
        """Write the attempt's last events in one transaction, with whatever is still unwritten."""
        if self._closing:
            return
        self._stop_deadline()
        for batch in self._logs.finish():
            self._append("log", batch)
        self._append_sent()
        data = orjson.dumps({"reason": outcome.reason}).decode() if outcome.reason else None
        self._move(outcome.status, data)
        self._closing = True
        events, self._unwritten = tuple(self._unwritten), []
        requeued = outcome.status == TaskStatus.QUEUED
        write = TaskWrite(
            self.task.id,
            self.task.attempt,
            events,
            status=outcome.status,
            output=outcome.output,
            error=outcome.error,
            error_code=outcome.code,
            requeue=requeued,
            lost=outcome.lost,
            deliver=None if requeued else webhook_of(self.task),
        )
        self._outcome = outcome
        self._ledger.submit(write, lazy=False)


def _characters(message: Any) -> int:
    """About how long a message is in a line of ASCII."""
    if not isinstance(message, str):
        return 512
    return len(message) if message.isascii() else 6 * len(message)


def webhook_of(task: Task) -> str | None:
    """Where the caller wants to be told of the end, if anywhere."""
    if task.options is None or '"webhook"' not in task.options:
        return None
    url: str | None = orjson.loads(task.options).get("webhook")
    return url


_HANDLERS: dict[type[Any], Callable[[Running, Any], None]] = {
    Moved: Running._moved,
    Logged: Running._logged,
    Progressed: Running._progressed,
    Yielded: Running._yielded,
    Delta: Running._delta,
    Sent: Running._sent_more,
    Finished: Running._finished,
    Lost: Running._lost,
    Returned: Running._returned,
}
