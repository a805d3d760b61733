"""Sessions: opened by a call, kept alive, ended by hand, by time or with their instance."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bakehouse.core.app import App, Version
from bakehouse.core.errors import BakehouseError, Conflict, Forbidden, Gone, Invalid, NotFound
from bakehouse.core.identity import Caller
from bakehouse.service.sessions import Sessions
from tests.support.platform import Platform


@pytest.fixture
async def who(here: Platform) -> Caller:
    return await here.caller()


@pytest.fixture
async def app(here: Platform, who: Caller) -> tuple[App, Version]:
    await here.built(await here.deploy(who, "name: counter"))
    return await here.apps.resolve(who, ref="counter")


async def code_of(question: object) -> str:
    with pytest.raises(BakehouseError) as caught:
        await question  # type: ignore[misc]
    return caught.value.code


async def test_a_session_keeps_its_version(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, 60)
    await here.sessions.called(session_id, "task_1")
    newer = await here.built(await here.deploy(who, "name: counter", "x = 2"))
    assert (await here.apps.resolve(who, ref="counter"))[1].id == newer.id
    assert (await here.sessions.check(who, session_id, app[0], None)).id == app[1].id
    session = await here.sessions.get(who, session_id)
    assert (session.status, session.call_count, session.idle_timeout) == ("active", 1, 60)
    assert session.expires_at - (session.last_call_at or 0) == 60_000_000
    assert [s.id for s in await here.sessions.list_sessions(who)] == [session_id]


async def test_mismatches(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, None)
    newer = await here.built(await here.deploy(who, "name: counter", "x = 2"))
    other = await here.built(await here.deploy(who, "name: other"))
    other_app = await here.apps.get(who, other.app_id)
    assert await code_of(here.sessions.check(who, session_id, app[0], newer)) == "VERSION_MISMATCH"
    assert await code_of(here.sessions.check(who, session_id, other_app, None)) == "APP_MISMATCH"
    assert (await here.sessions.check(who, session_id, *app)).id == app[1].id
    with pytest.raises(Conflict):
        await here.sessions.check(who, session_id, *[app[0], newer])


async def test_ending_by_hand(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, None)
    ended = await here.sessions.end(who, session_id)
    assert (ended.status, here.ended) == ("ended", [session_id])
    assert (await here.sessions.end(who, session_id)).ended_at == ended.ended_at
    assert here.ended == [session_id]
    with pytest.raises(Gone):
        await here.sessions.keepalive(who, session_id)
    assert await code_of(here.sessions.check(who, session_id, *app)) == "SESSION_ENDED"


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_time_ends_it_unless_it_is_kept_alive(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, 10)
    here.clock.moved = 9
    await here.sessions.keepalive(who, session_id)
    here.clock.moved = 18
    assert await here.sessions.expire() == 0
    here.clock.moved = 20
    assert await here.sessions.expire() == 1
    assert here.ended == [session_id]
    assert await code_of(here.sessions.check(who, session_id, *app)) == "SESSION_EXPIRED"
    assert (await here.sessions.get(who, session_id)).status == "expired"


async def test_the_sweep_runs_by_itself(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, 1)
    here.clock.moved = 5
    told: asyncio.Queue[str] = asyncio.Queue()
    sessions = Sessions(here.store, here.clock, here.apps, told.put_nowait)
    sweep = asyncio.create_task(sessions.run_expiry(0.005))
    assert await asyncio.wait_for(told.get(), 10) == session_id
    sweep.cancel()
    with suppress(asyncio.CancelledError):
        await sweep


async def test_a_lost_instance_ends_its_session(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, None)
    await here.sessions.lost(session_id, "its instance was killed")
    with pytest.raises(Gone, match="its instance was killed"):
        await here.sessions.check(who, session_id, *app)


async def test_a_restart_ends_what_lived_in_memory(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, None)
    assert await here.sessions.instances_lost() == 1
    with pytest.raises(Gone, match="restarted"):
        await here.sessions.check(who, session_id, *app)
    assert await here.sessions.instances_lost() == 0


async def test_sessions_of_others_are_not_there(here: Platform, who: Caller, app: tuple[App, Version]) -> None:
    session_id = await here.sessions.open(who, *app, None)
    other = await here.caller("other")
    for question in (
        here.sessions.get(other, session_id), here.sessions.keepalive(other, session_id),
        here.sessions.end(other, session_id), here.sessions.check(other, session_id, *app),
        here.sessions.check(who, "sess_none", *app),
    ):  # fmt: skip
        with pytest.raises(NotFound) as caught:
            await question
        assert caught.value.code == "SESSION_NOT_FOUND"
    with pytest.raises(Forbidden):
        await here.sessions.end(await here.caller("local", "deploy"), session_id)


@pytest.mark.parametrize("seconds", [0, -1, 3601])
async def test_idle_times_have_bounds(here: Platform, who: Caller, app: tuple[App, Version], seconds: int) -> None:
    with pytest.raises(Invalid) as caught:
        await here.sessions.open(who, *app, seconds)
    assert caught.value.fields[0]["path"] == "/session_timeout"
