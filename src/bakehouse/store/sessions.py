"""Sessions: series of calls to one leased instance."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update

from bakehouse.core.clock import SECOND
from bakehouse.core.errors import Gone
from bakehouse.core.session import Session
from bakehouse.store.connection import Connection
from bakehouse.store.room import SqlRoom, found
from bakehouse.store.tables import sessions, tasks

_S = sessions.c
_GET = select(sessions).where(_S.id == bindparam("id"))
_TOUCH = (
    update(sessions)
    .where(_S.id == bindparam("p_id"), _S.status == "active")
    .values(
        expires_at=_S.idle_timeout * SECOND + bindparam("p_at", type_=_S.expires_at.type),
        updated_at=bindparam("p_at", type_=_S.updated_at.type),
    )
    .returning(sessions)
)
_CALL = _TOUCH.values(call_count=_S.call_count + 1, last_call_at=bindparam("p_at", type_=_S.last_call_at.type))


class SessionRoom(SqlRoom):
    """The part of the contract about sessions."""

    async def create_session(self, session: Session) -> None:
        row = astuple(session)
        await self._change(lambda connection: connection.run(insert(sessions).values(row)))

    async def get_session(self, session_id: str, owner_id: str | None) -> Session:
        row = await self._read_point(lambda connection: connection.one(_GET, {"id": session_id}))
        if row is not None and owner_id is not None and row[1] != owner_id:
            row = None
        return Session(*found(row, f"session {session_id!r}"))

    async def list_sessions(self, owner_id: str) -> list[Session]:
        query = select(sessions).where(_S.owner_id == owner_id).order_by(_S.id.desc())
        return [Session(*row) for row in await self._read(lambda connection: connection.all(query))]

    async def touch_session(self, session_id: str, at: int, *, called: bool) -> Session:
        def touch(connection: Connection) -> Session:
            row: tuple[Any, ...] | None = connection.one(_CALL if called else _TOUCH, {"p_id": session_id, "p_at": at})
            if row is None:
                found(connection.one(_GET, {"id": session_id}), f"session {session_id!r}")
                raise Gone(f"session {session_id!r} has ended; start a new one")
            return Session(*row)

        return await self._change(touch)

    async def end_session(self, session_id: str, at: int, status: str, reason: str) -> None:
        end = (
            update(sessions)
            .where(_S.id == session_id, _S.status == "active")
            .values(status=status, ended_at=at, updated_at=at, ended_reason=reason)
        )

        def finish(connection: Connection) -> None:
            found(connection.one(_GET, {"id": session_id}), f"session {session_id!r}")
            connection.run(end)

        await self._change(finish)

    async def expired_sessions(self, now: int) -> list[Session]:
        busy = exists().where(tasks.c.session_id == _S.id, tasks.c.finished_at.is_(None))
        query = select(sessions).where(_S.status == "active", _S.expires_at <= now, ~busy).order_by(_S.expires_at)
        return [Session(*row) for row in await self._read(lambda connection: connection.all(query))]
