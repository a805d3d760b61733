"""Tasks: the hot path's front, look-ups, the waiting line and retention."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update

from bakehouse.core.errors import BakehouseError, Conflict
from bakehouse.core.file import TaskFile
from bakehouse.core.task import Event, InboxItem, QueuedTask, Task, TaskStatus, TaskWrite, check_move
from bakehouse.store import hot
from bakehouse.store.base import CancelResult, ListQuery, Page
from bakehouse.store.connection import Connection
from bakehouse.store.lists import Listing, list_page
from bakehouse.store.room import SqlRoom, found
from bakehouse.store.tables import events, inbox, task_files, tasks, webhooks

_T = tasks.c
# Literal, because the planner must see that it is the condition of the index.
_WAITING = hot.literal_status("status", TaskStatus.QUEUED)

_GET = select(tasks).where(_T.id == bindparam("id"))
_EVENTS = (
    select(*(column for column in events.c if column.name != "task_id"))
    .where(events.c.task_id == bindparam("task_id"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("most", type_=events.c.seq.type))
)
_EVENTS_OF_KIND = _EVENTS.where(events.c.kind == bindparam("kind"))
_LOCK = select(_T.id, _T.owner_id, _T.finished_at).where(_T.id == bindparam("id")).with_for_update()
_INBOX = (
    select(inbox).where(inbox.c.task_id == bindparam("task_id"), inbox.c.seq > bindparam("after")).order_by(inbox.c.seq)
)
_LAST_INBOX = select(func.coalesce(func.max(inbox.c.seq), 0)).where(inbox.c.task_id == bindparam("task_id"))
_COUNT_WAITING = select(func.count()).select_from(tasks).where(_WAITING)
_COUNT_OPEN = select(_T.status, func.count()).where(_T.finished_at.is_(None)).group_by(_T.status)
_COUNT_ENDED = select(_T.status, func.count()).where(_T.finished_at.is_not(None)).group_by(_T.status)
_NEXT_DUE = select(func.min(_T.run_at)).where(_WAITING, _T.run_at > bindparam("now", type_=_T.run_at.type))

_LISTING = Listing(
    tasks,
    fields=(
        "id", "kind", "status", "user_id", "root_id", "parent_id", "app_id", "version_id", "app_ref", "function",
        "session_id", "lane", "attempt", "failures", "created_at", "updated_at", "started_at", "finished_at", "run_at",
        "error_code",
    ),
    search=("id", "app_ref", "function"),
    make=hot.task_of,
    aliases={"app_version_id": "version_id"},
)  # fmt: skip


class TaskRoom(SqlRoom):
    """The part of the contract about tasks."""

    async def accept(self, task: Task, events: Sequence[Event], files: Sequence[TaskFile] = ()) -> Task | None:
        earlier: Task | None = await self._submit(hot.Accept(task, events, files))
        return earlier

    async def claim(self, task_ids: Sequence[str], holder: str) -> list[Task]:
        if not task_ids:
            return []
        claimed: list[Task] = await self._submit(hot.Claim(task_ids, holder, self._clock.now()))
        return claimed

    def write(self, write: TaskWrite, *, lazy: bool = False) -> asyncio.Future[bool]:
        try:
            return self._submit(hot.Write(write), lazy=lazy)
        except BakehouseError as error:
            # Whoever calls this waits for the future only.
            refused: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    async def save_snapshots(self, snapshots: Sequence[tuple[str, int, str]]) -> None:
        if snapshots:
            await self._submit(hot.Snapshots(snapshots), lazy=True)

    # ---- cancel ---------------------------------------------------------------------------------------------

    async def request_cancel(self, task_id: str, owner_id: str | None, at: int) -> list[CancelResult]:
        return await self._change(lambda connection: _cancel_tree(connection, task_id, owner_id, at))

    async def cancel_requests(self, holder: str) -> list[str]:
        wanted = select(_T.id).where(
            _T.lease_holder == holder,
            _T.finished_at.is_(None),
            _T.cancel_requested_at.is_not(None),
            _T.status != int(TaskStatus.CANCELLING),
        )
        return [row[0] for row in await self._read(lambda connection: connection.all(wanted))]

    # ---- look up --------------------------------------------------------------------------------------------

    async def get_task(self, task_id: str, owner_id: str | None) -> Task:
        row = await self._read_point(lambda connection: connection.one(_GET, {"id": task_id}))
        if row is not None and owner_id is not None and row[2] != owner_id:
            row = None
        return hot.task_of(found(row, f"task {task_id!r}"))

    async def list_tasks(self, owner_id: str, query: ListQuery) -> Page:
        return await self._read(lambda connection: list_page(connection, _LISTING, _T.owner_id == owner_id, query))

    async def events(self, task_id: str, after: int = 0, limit: int = 1000, kind: str | None = None) -> list[Event]:
        params: dict[str, Any] = {"task_id": task_id, "after": after, "most": limit, "kind": kind}
        statement = _EVENTS if kind is None else _EVENTS_OF_KIND
        rows = await self._read(lambda connection: connection.all(statement, params))
        return [
            Event(seq, at, kind, hot.STATUSES[status], attempt, data) for seq, at, kind, status, attempt, data in rows
        ]

    # ---- the waiting line -----------------------------------------------------------------------------------

    async def queued(self, now: int, limit: int) -> list[QueuedTask]:
        turn = func.row_number().over(partition_by=_T.owner_id, order_by=(_T.created_at, _T.id)).label("turn")
        waiting = (
            select(_T.id, _T.kind, _T.owner_id, _T.lane, _T.run_at, _T.created_at, turn)
            .where(_WAITING, _T.cancel_requested_at.is_(None), or_(_T.run_at.is_(None), _T.run_at <= now))
            .subquery()
        )
        fair = select(waiting).order_by(waiting.c.turn, waiting.c.created_at).limit(limit)
        rows = await self._read(lambda connection: connection.all(fair))
        return [QueuedTask(*row[:6]) for row in sorted(rows, key=lambda row: (row[5], row[0]))]

    async def next_due(self, now: int) -> int | None:
        row = await self._read(lambda connection: connection.one(_NEXT_DUE, {"now": now}))
        return row[0] if row else None

    async def count_queued(self, owner_id: str | None = None) -> int:
        # Not the bare column: SQLite would take the index of all the owner's tasks, not that of the waiting ones.
        mine = func.coalesce(_T.owner_id, "") == owner_id
        statement = _COUNT_WAITING if owner_id is None else _COUNT_WAITING.where(mine)
        row = await self._read(lambda connection: connection.one(statement))
        return int(row[0]) if row else 0

    async def task_counts(self) -> dict[TaskStatus, int]:
        def count(connection: Connection) -> dict[TaskStatus, int]:
            rows = connection.all(_COUNT_OPEN, {}) + connection.all(_COUNT_ENDED, {})
            return {hot.STATUSES[status]: number for status, number in rows}

        return await self._read(count)

    # ---- delete ---------------------------------------------------------------------------------------------

    async def delete_task(self, task_id: str, owner_id: str) -> None:
        def remove(connection: Connection) -> None:
            row = connection.one(_LOCK, {"id": task_id})
            row = found(row if row and row[1] == owner_id else None, f"task {task_id!r}")
            if row[2] is None:
                raise Conflict(f"task {task_id!r} has not ended; cancel it first", code="invalid_transition")
            _delete(connection, [task_id])

        await self._change(remove)

    async def purge_tasks(self, finished_before: int, limit: int) -> int:
        ended = [status for status in hot.STATUSES if status.terminal]
        old = (
            select(_T.id)
            .where(_T.finished_at.is_not(None), _T.status.in_(ended), _T.finished_at < finished_before)
            .order_by(_T.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )

        def purge(connection: Connection) -> int:
            ids = [row[0] for row in connection.all(old)]
            if ids:
                _delete(connection, ids)
            return len(ids)

        return await self._change(purge)

    # ---- inbox ----------------------------------------------------------------------------------------------

    async def put_inbox(self, task_id: str, owner_id: str, kind: str, data: str, at: int) -> InboxItem:
        def put(connection: Connection) -> InboxItem:
            row = connection.one(_LOCK, {"id": task_id})
            row = found(row if row and row[1] == owner_id else None, f"task {task_id!r}")
            if row[2] is not None:
                raise Conflict(f"task {task_id!r} has ended; it reads no more messages", code="invalid_transition")
            last = connection.one(_LAST_INBOX, {"task_id": task_id})
            item = InboxItem(task_id, (last[0] if last else 0) + 1, at, kind, data)
            connection.run(_PUT_INBOX, {"task_id": task_id, "seq": item.seq, "at": at, "kind": kind, "data": data})
            return item

        return await self._change(put)

    async def inbox(self, task_id: str, after: int = 0) -> list[InboxItem]:
        rows = await self._read(lambda connection: connection.all(_INBOX, {"task_id": task_id, "after": after}))
        return [InboxItem(*row) for row in rows]


_PUT_INBOX = insert(inbox)


def _delete(connection: Connection, ids: list[str]) -> None:
    """Delete tasks and what hangs on them."""
    for table in (events, inbox, task_files, webhooks):
        connection.run(delete(table).where(table.c.task_id.in_(ids)))
    connection.run(delete(tasks).where(_T.id.in_(ids)))


# ---- cancel ---------------------------------------------------------------------------------------------------


def _tree(task_id: str) -> Any:
    """The task and everything below it, locked in the order of ids, in which all lock."""
    tree = select(_T.id).where(_T.id == task_id).cte("tree", recursive=True)
    tree = tree.union(select(_T.id).where(_T.parent_id == tree.c.id))
    return select(tasks).where(_T.id.in_(select(tree.c.id))).order_by(_T.id).with_for_update()


def _cancel_tree(connection: Connection, task_id: str, owner_id: str | None, at: int) -> list[CancelResult]:
    found_tasks = [hot.task_of(row) for row in connection.all(_tree(task_id))]
    root = next((task for task in found_tasks if task.id == task_id), None)
    if root is None or (owner_id is not None and root.owner_id != owner_id):
        found(None, f"task {task_id!r}")
    results = [_cancel_one(connection, task, at) for task in found_tasks]
    return sorted(results, key=lambda result: result.task.id != task_id)


def _cancel_one(connection: Connection, task: Task, at: int) -> CancelResult:
    if task.status.terminal:
        return CancelResult(task, False)
    held = task.lease_holder is not None
    if task.cancel_requested_at is None:
        task.cancel_requested_at = at
    if held:
        connection.run(_ASK, {"p_id": task.id, "p_asked": task.cancel_requested_at})
        return CancelResult(task, False)
    check_move(task.status, TaskStatus.CANCELLED)
    task.status, task.finished_at, task.updated_at, task.snapshot = TaskStatus.CANCELLED, at, at, None
    task.last_seq += 1
    connection.run(_END, {"p_id": task.id, "p_asked": task.cancel_requested_at, "p_at": at, "p_last": task.last_seq})
    row = {
        "task_id": task.id, "seq": task.last_seq, "at": at, "kind": "status", "status": int(task.status),
        "attempt": task.attempt, "data": None,
    }  # fmt: skip
    connection.run(hot.INSERT_EVENT, row)
    url = orjson.loads(task.options).get("webhook") if task.options else None
    if url:
        connection.run(hot.INSERT_DELIVERY, hot.delivery(task.id, task.owner_id, url, at))
    return CancelResult(task, True)


_ASK = (
    update(tasks)
    .where(_T.id == bindparam("p_id"))
    .values(cancel_requested_at=bindparam("p_asked", type_=_T.cancel_requested_at.type))
)
_END = (
    update(tasks)
    .where(_T.id == bindparam("p_id"), and_(_T.finished_at.is_(None)))
    .values(
        status=int(TaskStatus.CANCELLED),
        cancel_requested_at=bindparam("p_asked", type_=_T.cancel_requested_at.type),
        finished_at=bindparam("p_at", type_=_T.finished_at.type),
        updated_at=bindparam("p_at", type_=_T.updated_at.type),
        last_seq=bindparam("p_last", type_=_T.last_seq.type),
        snapshot=None,
    )
)
