"""A session: a series of calls to one leased instance, so that state kept in the instance lasts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """``status`` is ``active``, ``ended`` or ``expired``; ``idle_timeout`` is seconds, restarted by every call."""

    id: str
    owner_id: str
    app_id: str
    version_id: str
    status: str
    idle_timeout: int
    created_at: int
    expires_at: int
    updated_at: int
    call_count: int = 0
    last_call_at: int | None = None
    ended_at: int | None = None
    task_id: str | None = None
    worker_id: str | None = None
    ended_reason: str | None = None
