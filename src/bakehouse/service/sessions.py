"""Sessions: a series of calls to one leased instance, opened and kept alive by calls, ended by hand or by time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bakehouse.core.app import App, Version
from bakehouse.core.clock import SECOND, Clock
from bakehouse.core.errors import BakehouseError, Conflict, Gone, Invalid, NotFound
from bakehouse.core.identity import Caller
from bakehouse.core.ids import new_id
from bakehouse.core.session import Session
from bakehouse.service.apps import Apps
from bakehouse.store.base import Store

DEFAULT_IDLE_TIMEOUT = 300
"""Seconds. Clients' texts say 60 in one place and 300 in another; the longer one surprises nobody."""
MAX_IDLE_TIMEOUT = 3600
NEVER = 2**62
"""A moment after every session's time, in microseconds."""

log = structlog.get_logger("bakehouse.sessions")


class Sessions:
    """See the module's text. ``end_instance`` gives up the instance that is leased to a session, after its call."""

    def __init__(self, store: Store, clock: Clock, apps: Apps, end_instance: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._apps = apps
        self._end_instance = end_instance

    # ---- calls ------------------------------------------------------------------------------------------------
    async def open(self, caller: Caller, app: App, version: Version, idle_timeout: int | None) -> str:
        """A new session's id. ``idle_timeout`` seconds, 1 to 3600. Raises Invalid."""
        seconds = DEFAULT_IDLE_TIMEOUT if idle_timeout is None else idle_timeout
        if not 1 <= seconds <= MAX_IDLE_TIMEOUT:
            raise Invalid.at("/session_timeout", f"must be 1 to {MAX_IDLE_TIMEOUT} seconds")
        now = self._clock.now()
        session = Session(
            id=new_id("sess"),
            owner_id=caller.owner_id,
            app_id=app.id,
            version_id=version.id,
            status="active",
            idle_timeout=seconds,
            created_at=now,
            expires_at=now + seconds * SECOND,
            updated_at=now,
        )
        await self._store.create_session(session)
        return session.id

    async def check(self, caller: Caller, session_id: str, app: App, version: Version | None) -> Version:
        """The version that the session runs. *version* is the one that the call names, if it names one.

        Raises NotFound ``SESSION_NOT_FOUND``, Gone ``SESSION_EXPIRED`` or ``SESSION_ENDED``, Conflict ``APP_MISMATCH``
        or ``VERSION_MISMATCH``.
        """
        session = await self.get(caller, session_id)
        self._check_active(session)
        if session.app_id != app.id:
            raise Conflict("this session belongs to another app", code="APP_MISMATCH")
        if version is not None and version.id != session.version_id:
            raise Conflict("this session runs another version of the app", code="VERSION_MISMATCH")
        return await self._apps.version(session.version_id)

    async def called(self, session_id: str, task_id: str) -> None:
        """A call of the session was accepted: its idle time begins again."""
        del task_id  # the task's row names the session
        await self._store.touch_session(session_id, self._clock.now(), called=True)

    def _check_active(self, session: Session) -> None:
        if session.status == "ended":
            why = session.ended_reason or "it was ended"
            raise Gone(f"this session is over: {why}; open one with session 'new'", code="SESSION_ENDED")
        # A call that still runs keeps a session alive, but this one is asked for after its time and the sweep decides.
        if session.status == "expired":
            raise Gone(
                f"this session expired after {session.idle_timeout} s without a call; open one with session 'new'",
                code="SESSION_EXPIRED",
            )

    # ---- by hand ----------------------------------------------------------------------------------------------
    async def list_sessions(self, caller: Caller) -> list[Session]:
        """The owner's sessions, newest first."""
        return await self._store.list_sessions(caller.owner_id)

    async def get(self, caller: Caller, session_id: str) -> Session:
        """One session. Raises NotFound ``SESSION_NOT_FOUND``."""
        try:
            return await self._store.get_session(session_id, caller.owner_id)
        except NotFound:
            raise NotFound(f"no session {session_id!r}", code="SESSION_NOT_FOUND") from None

    async def keepalive(self, caller: Caller, session_id: str) -> Session:
        """Begin the idle time again. Raises as ``check`` does."""
        caller.need("run")
        self._check_active(await self.get(caller, session_id))
        return await self._store.touch_session(session_id, self._clock.now(), called=False)

    async def end(self, caller: Caller, session_id: str) -> Session:
        """End the session; an ended one stays as it is. Raises NotFound."""
        caller.need("run")
        session = await self.get(caller, session_id)
        if session.status == "active":
            await self._store.end_session(session_id, self._clock.now(), "ended", "it was ended by its owner")
            self._end_instance(session_id)
        return await self.get(caller, session_id)

    # ---- by themselves ----------------------------------------------------------------------------------------
    async def lost(self, session_id: str, reason: str) -> None:
        """The session's instance is gone, and what it remembered with it: the session is over."""
        await self._store.end_session(session_id, self._clock.now(), "ended", reason)

    async def instances_lost(self) -> int:
        """This server, the only one, has just started: instances of an earlier one are gone, and so are the sessions
        that had nothing to do. Those with a call unfinished end when their instance is reported lost. How many ended.
        """
        orphans = await self._store.expired_sessions(NEVER)
        for session in orphans:
            await self.lost(session.id, "the server was restarted, and the session's state went with its instance")
        return len(orphans)

    async def expire(self) -> int:
        """End what has been idle for too long and has no call unfinished; how many."""
        now = self._clock.now()
        expired = await self._store.expired_sessions(now)
        for session in expired:
            await self._store.end_session(session.id, now, "expired", f"no call for {session.idle_timeout} s")
            self._end_instance(session.id)
        return len(expired)

    async def run_expiry(self, interval: float = 1.0) -> None:
        """Call ``expire`` for ever, every *interval* seconds. Cancel it to stop."""
        while True:
            try:
                await self.expire()
            except BakehouseError as error:
                log.warning("sessions could not be swept", action="session_sweep_failed", error=error.detail)
            await asyncio.sleep(interval)
