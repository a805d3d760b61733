"""The writes of the hot path as data, and the parts of their statements that both databases share.

Accept, claim, write and snapshot are what a task costs. They run in batches; everything else runs as a plain function
on the writer's connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Update, bindparam, func, insert, literal_column, null, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from bakehouse.core.errors import Conflict
from bakehouse.core.file import TaskFile
from bakehouse.core.ids import new_id
from bakehouse.core.task import LEGAL, Event, Task, TaskStatus, TaskWrite
from bakehouse.store.tables import events, task_files, tasks, webhooks

STATUSES = tuple(TaskStatus(number) for number in range(len(TaskStatus)))
TASK_COLUMNS = tuple(column.name for column in tasks.c)


def task_of(row: Sequence[Any]) -> Task:
    """A row of ``tasks``, by position."""
    task = Task(*row)
    task.status = STATUSES[row[5]]
    return task


def row_of(task: Task) -> tuple[Any, ...]:
    """The row of *task*, by position."""
    return (
        task.id, task.kind, task.owner_id, task.user_id, task.root_id, int(task.status), task.lane, task.function,
        task.input, task.created_at, task.updated_at, task.parent_id, task.attempt, task.failures, task.retries,
        task.app_id, task.version_id, task.app_ref, task.setup, task.session_id, task.options, task.timeout,
        task.run_at, task.idempotency_key, task.request_hash, task.last_seq, task.lease_holder,
        task.cancel_requested_at, task.started_at, task.finished_at, task.output, task.error, task.error_code,
        task.snapshot,
    )  # fmt: skip


class Accept:
    """Insert a task. ``result``: None, or the earlier task with the same idempotency key."""

    __slots__ = ("events", "files", "result", "task")

    def __init__(self, task: Task, events: Sequence[Event], files: Sequence[TaskFile]) -> None:
        self.task, self.events, self.files = task, events, files
        self.result: Task | None = None


class Claim:
    """Claim waiting tasks. ``result``: those that were still to be had."""

    __slots__ = ("holder", "now", "result", "task_ids")

    def __init__(self, task_ids: Sequence[str], holder: str, now: int) -> None:
        self.task_ids, self.holder, self.now = task_ids, holder, now
        self.result: list[Task] = []


class Write:
    """One attempt's write. ``result``: whether it was applied."""

    __slots__ = ("changes", "result", "shape", "write")

    def __init__(self, write: TaskWrite) -> None:
        self.write = write
        self.shape, self.changes = plan_write(write)
        self.result = False


class Snapshots:
    """Replace live snapshots; stale ones are ignored."""

    __slots__ = ("result", "rows")

    def __init__(self, rows: Sequence[tuple[str, int, str]]) -> None:
        self.rows = rows
        self.result = None


HotOp = Accept | Claim | Write | Snapshots


# ---- what a write changes -------------------------------------------------------------------------------------

_BEFORE = {after: sum(1 << before for before, moves in LEGAL.items() if after in moves) for after in TaskStatus}
"""For each state a set of bits: from which states it may be reached."""


def _moves(found: Sequence[Event]) -> tuple[int, TaskStatus | None, int | None]:
    """The bits of states in which the first move of *found* is legal, the last move, and when RUNNING began."""
    before: TaskStatus | None = None
    mask, started = -1, None
    for event in found:
        if event.kind != "status":
            continue
        if before is None:
            mask = _BEFORE[event.status]
        elif event.status not in LEGAL[before]:
            raise Conflict(f"a {before.text} task cannot become {event.status.text}", code="invalid_transition")
        before = event.status
        if before is TaskStatus.RUNNING:
            started = event.at
    return mask, before, started


def plan_write(write: TaskWrite) -> tuple[str, dict[str, Any]]:
    """Which statement of ``UPDATES`` *write* needs, and its parameters. Raises Conflict for events out of order."""
    first, last = write.events[0], write.events[-1]
    mask, status, started = _moves(write.events)
    changes: dict[str, Any] = {
        "p_id": write.task_id, "p_attempt": write.attempt, "p_before": first.seq - 1, "p_last": last.seq,
        "p_at": last.at,
    }  # fmt: skip
    if write.status not in (None, status):
        raise Conflict("a write moves the task and its story together", code="invalid_transition")
    if status is None and write.output is None and write.error is None:
        return "log", changes
    changes.update(
        p_mask=mask, p_started=started, p_status=None if status is None else int(status), p_output=write.output,
        p_error=clean(write.error), p_code=write.error_code,
    )  # fmt: skip
    if status is not None and status.terminal:
        return "end", changes
    if write.requeue:
        changes["p_lost"] = int(write.lost)
        return "requeue", changes
    return "move", changes


def clean(text: str | None) -> str | None:
    """*text* without what a database's text cannot hold: an app's error may be anything, and must be told."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


def delivery(task_id: str, owner_id: str, url: str, at: int) -> dict[str, Any]:
    """A webhook delivery that is due at once, as a row."""
    return {
        "id": new_id("hook"), "task_id": task_id, "owner_id": owner_id, "url": url, "tries": 0, "next_at": at,
        "error": None,
    }  # fmt: skip


def link_row(link: TaskFile) -> dict[str, Any]:
    """*link* as a row."""
    return {"task_id": link.task_id, "file_id": link.file_id, "role": link.role, "created_at": link.created_at}


# ---- statements -----------------------------------------------------------------------------------------------


def _kept(name: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(bindparam(name, type_=column.type), column)


def _update(**changes: Any) -> Update:
    """An update of one attempt: only the newest, of a task that has not ended, with no event missing between."""
    t = tasks.c
    return (
        update(tasks)
        .where(
            t.id == bindparam("p_id", type_=t.id.type),
            t.attempt == bindparam("p_attempt", type_=t.attempt.type),
            t.last_seq == bindparam("p_before", type_=t.last_seq.type),
            t.finished_at.is_(None),
        )
        .values(
            last_seq=bindparam("p_last", type_=t.last_seq.type),
            updated_at=bindparam("p_at", type_=t.updated_at.type),
            **changes,
        )
    )


def _move(**changes: Any) -> Update:
    t = tasks.c
    legal = bindparam("p_mask", type_=t.attempt.type).op(">>")(t.status).op("&")(1) == 1
    return _update(
        **{
            "status": _kept("p_status", t.status),
            "started_at": _kept("p_started", t.started_at),
            "output": _kept("p_output", t.output),
            "error": _kept("p_error", t.error),
            "error_code": _kept("p_code", t.error_code),
            **changes,
        }
    ).where(legal)


# One statement per shape: SQLite maintains an index whenever its columns are named, changed or not.
UPDATES: dict[str, Update] = {
    "log": _update(),
    "move": _move(),
    "end": _move(finished_at=bindparam("p_at", type_=tasks.c.finished_at.type), lease_holder=null(), snapshot=null()),
    "requeue": _move(
        lease_holder=null(),
        snapshot=null(),
        started_at=null(),
        failures=tasks.c.failures + bindparam("p_lost", type_=tasks.c.failures.type),
    ),
}

CLAIM = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("p_id"),
        tasks.c.status == int(TaskStatus.QUEUED),
        tasks.c.cancel_requested_at.is_(None),
        or_(tasks.c.run_at.is_(None), tasks.c.run_at <= bindparam("p_now", type_=tasks.c.run_at.type)),
    )
    .values(
        status=int(TaskStatus.SCHEDULED),
        attempt=tasks.c.attempt + 1,
        last_seq=tasks.c.last_seq + 1,
        lease_holder=bindparam("p_holder", type_=tasks.c.lease_holder.type),
        updated_at=bindparam("p_now", type_=tasks.c.updated_at.type),
    )
    .returning(*tasks.c)
)

SNAPSHOT = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("p_id"),
        tasks.c.attempt == bindparam("p_attempt"),
        tasks.c.finished_at.is_(None),
        tasks.c.lease_holder.is_not(None),
    )
    .values(snapshot=bindparam("p_json", type_=tasks.c.snapshot.type))
)

INSERT_EVENT = insert(events)
INSERT_FILE = insert(task_files)
INSERT_DELIVERY = insert(webhooks)
EARLIER = select(tasks).where(
    tasks.c.owner_id == bindparam("p_owner"), tasks.c.idempotency_key == bindparam("p_key")
)  # fmt: skip
GET_OWNER = select(tasks.c.owner_id).where(tasks.c.id == bindparam("p_id"))


def literal_status(column: str, status: TaskStatus) -> ColumnElement[bool]:
    """``tasks.COLUMN = NUMBER`` with the number in the text, so that a planner finds the partial index on it."""
    return tasks.c[column] == literal_column(str(int(status)))
