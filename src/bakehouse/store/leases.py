"""Who runs what: holders and their leases by the database's clock; and webhooks that wait to be delivered."""

from __future__ import annotations

from sqlalchemy import and_, bindparam, delete, exists, insert, or_, select, update

from bakehouse.core.clock import SECOND
from bakehouse.core.task import Task, TaskStatus
from bakehouse.store import hot
from bakehouse.store.base import WebhookDelivery
from bakehouse.store.connection import Connection
from bakehouse.store.room import SqlRoom
from bakehouse.store.tables import holders, tasks, webhooks

HIDE_WEBHOOK = 60 * SECOND
"""How long a delivery is hidden from other callers after one has taken it."""

_T, _H, _W = tasks.c, holders.c, webhooks.c
_RETIRE = delete(holders).where(_H.holder == bindparam("p_holder"))
_DONE = delete(webhooks).where(_W.id == bindparam("p_id"))
_RETRY = (
    update(webhooks)
    .where(_W.id == bindparam("p_id"))
    .values(
        tries=_W.tries + 1,
        next_at=bindparam("p_next", type_=_W.next_at.type),
        error=bindparam("p_error", type_=_W.error.type),
    )
)


class LeaseRoom(SqlRoom):
    """The part of the contract about leases and webhooks."""

    async def heartbeat(self, holder: str, address: str, seconds: float) -> bool:
        now = self._dialect.now
        until = now + int(seconds * SECOND)

        def renew(connection: Connection) -> bool:
            row = connection.one(select(_H.expires_at > now).where(_H.holder == holder).with_for_update())
            if row is None:
                connection.run(insert(holders).values(holder=holder, address=address, expires_at=until))
                return True
            connection.run(update(holders).where(_H.holder == holder).values(address=address, expires_at=until))
            return bool(row[0])

        return await self._change(renew)

    async def holder_address(self, holder: str) -> str | None:
        live = select(_H.address).where(_H.holder == holder, _H.expires_at > self._dialect.now)
        row = await self._read(lambda connection: connection.one(live))
        return row[0] if row else None

    async def orphans(self, limit: int, *, sole: str | None = None) -> list[Task]:
        if sole is not None:
            lost = and_(_T.lease_holder.is_not(None), _T.lease_holder != sole)
        else:
            live = exists().where(_H.holder == _T.lease_holder, _H.expires_at > self._dialect.now)
            lost = and_(_T.lease_holder.is_not(None), ~live)
        # A waiting task has no holder by right; unless a cancel came while it was on its way back to the queue.
        waiting = and_(_T.status == int(TaskStatus.QUEUED), _T.cancel_requested_at.is_(None))
        orphaned = or_(lost, and_(_T.lease_holder.is_(None), ~waiting))
        # In the order of the index of what has not ended, or SQLite would walk through every task there ever was.
        query = select(tasks).where(_T.finished_at.is_(None), orphaned).order_by(_T.lease_holder).limit(limit)
        rows = await self._read(lambda connection: connection.all(query))
        return sorted((hot.task_of(row) for row in rows), key=lambda task: task.id)

    async def held(self, holder: str) -> list[tuple[str, int]]:
        mine = select(_T.id, _T.attempt).where(_T.lease_holder == holder, _T.finished_at.is_(None))
        return [(row[0], row[1]) for row in await self._read(lambda connection: connection.all(mine))]

    async def retire(self, holder: str) -> None:
        await self._change(lambda connection: connection.run(_RETIRE, {"p_holder": holder}))

    async def due_webhooks(self, now: int, limit: int) -> list[WebhookDelivery]:
        due = (
            select(_W.id)
            .where(_W.next_at > 0, _W.next_at <= now)
            .order_by(_W.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        shown = (_W.id, _W.task_id, _W.owner_id, _W.url, _W.tries, _W.next_at)

        def take(connection: Connection) -> list[WebhookDelivery]:
            ids = [row[0] for row in connection.all(due)]
            if not ids:
                return []
            hide = update(webhooks).where(_W.id.in_(ids)).values(next_at=now + HIDE_WEBHOOK).returning(*shown)
            return sorted((WebhookDelivery(*row) for row in connection.all(hide)), key=lambda item: ids.index(item.id))

        return await self._change(take)

    async def webhook_done(self, delivery_id: str) -> None:
        await self._change(lambda connection: connection.run(_DONE, {"p_id": delivery_id}))

    async def webhook_retry(self, delivery_id: str, next_at: int, error: str) -> None:
        params = {"p_id": delivery_id, "p_next": next_at, "p_error": hot.clean(error)}
        await self._change(lambda connection: connection.run(_RETRY, params))
