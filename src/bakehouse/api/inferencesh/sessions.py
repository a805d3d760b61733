"""Sessions: list, look up, keep alive, end. One is opened by a call with ``session: "new"``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.api.common.envelope import reply
from bakehouse.api.common.openapi import array_of, document
from bakehouse.api.common.services import services_of
from bakehouse.core.clock import rfc3339
from bakehouse.core.ids import short_id
from bakehouse.core.session import Session

router = APIRouter(tags=["sessions"])


class SessionShape(BaseModel):
    """A session; ``status`` is active, ended or expired; ``idle_timeout`` is seconds."""

    id: str
    short_id: str
    created_at: str
    updated_at: str
    team_id: str
    app_id: str
    app_version_id: str
    worker_id: str
    status: str
    expires_at: str
    ended_at: str | None
    ended_reason: str | None
    task_id: str | None
    call_count: int
    last_call_at: str | None
    idle_timeout: int


def session_shape(session: Session) -> dict[str, Any]:
    """*session* as clients read it."""
    return {
        "id": session.id,
        "short_id": short_id(session.id),
        "created_at": rfc3339(session.created_at),
        "updated_at": rfc3339(session.updated_at),
        "team_id": session.owner_id,
        "app_id": session.app_id,
        "app_version_id": session.version_id,
        "worker_id": session.worker_id or "",
        "status": session.status,
        "expires_at": rfc3339(session.expires_at),
        "ended_at": rfc3339(session.ended_at) if session.ended_at is not None else None,
        "ended_reason": session.ended_reason,
        "task_id": session.task_id,
        "call_count": session.call_count,
        "last_call_at": rfc3339(session.last_call_at) if session.last_call_at is not None else None,
        "idle_timeout": session.idle_timeout,
    }


@router.get("/sessions", **document("listSessions", "Your sessions, newest first", data=array_of(SessionShape)))
async def list_sessions(request: Request) -> Response:
    found = await services_of(request).sessions.list_sessions(await caller(request))
    return reply(request, [session_shape(session) for session in found])


@router.get("/sessions/{session_id}", **document("getSession", "One session", data=SessionShape, errors=(404,)))
async def get(request: Request, session_id: str) -> Response:
    return reply(request, session_shape(await services_of(request).sessions.get(await caller(request), session_id)))


@router.post(
    "/sessions/{session_id}/keepalive",
    **document("keepSession", "Begin the idle time again", data=SessionShape, errors=(403, 404, 410)),
)
async def keepalive(request: Request, session_id: str) -> Response:
    session = await services_of(request).sessions.keepalive(await caller(request), session_id)
    return reply(request, session_shape(session))


@router.delete(
    "/sessions/{session_id}", **document("endSession", "End a session", data=SessionShape, errors=(403, 404))
)
async def end(request: Request, session_id: str) -> Response:
    return reply(request, session_shape(await services_of(request).sessions.end(await caller(request), session_id)))
