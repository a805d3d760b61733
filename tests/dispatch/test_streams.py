"""Streams where reads and writes meet: nothing doubled, nothing without its output, nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bakehouse.core.errors import Unavailable
from bakehouse.core.executor import Finished
from bakehouse.core.task import Event, TaskStatus
from bakehouse.store.base import Store
from tests.dispatch.support import Server, make_server


async def test_an_end_that_comes_between_two_reads_is_not_told_without_its_output(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make_server(store), make_server(store, holder="srv_b")
    task = await there.queue()
    await there.until(lambda: there.executor.calls)
    get_task = store.get_task

    async def then_it_ends(task_id: str, owner_id: str | None) -> Any:
        row = await get_task(task_id, owner_id)
        monkeypatch.undo()
        there.executor.end(task_id, Finished({"n": 1}))
        await there.until(lambda: there.finished)
        return row

    row = await get_task(task.id, None)
    monkeypatch.setattr(store, "get_task", then_it_ends)
    story = await here.story(row)
    assert story[-1].status == TaskStatus.COMPLETED and story[-1].task.output == '{"n":1}'


async def test_an_end_that_the_store_knows_first_is_not_told_without_its_output(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await server.queue()
    await server.until(lambda: server.live.feeds[task.id].task.status == TaskStatus.RUNNING)
    feed = server.live.feeds[task.id]
    feed.kept.clear()  # a reader from the start needs the store
    events = server.store.events

    async def with_the_end(task_id: str, after: int = 0, limit: int = 1000, kind: str | None = None) -> list[Event]:
        monkeypatch.undo()
        last = feed.task.last_seq
        told = await events(task_id, after, limit, kind)
        server.executor.end(task_id, Finished({"n": 1}))
        return [*told, Event(last + 1, 0, "status", TaskStatus.COMPLETED, 1)]

    monkeypatch.setattr(server.store, "events", with_the_end)
    story = await server.story(feed.task)
    ends = [(u.status, u.task.output) for u in story if u.status.terminal]
    assert ends == [(TaskStatus.COMPLETED, '{"n":1}')]


async def test_readers_outlive_a_database_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_server(store), make_server(store, holder="srv_b")
    task = await there.queue()
    await there.until(lambda: there.executor.calls)
    row = await store.get_task(task.id, None)
    asked = asyncio.Event()

    async def away(task_id: str, owner_id: str | None) -> Any:
        asked.set()
        raise Unavailable("away")

    monkeypatch.setattr(store, "get_task", away)
    reader = asyncio.ensure_future(here.story(row))
    await asyncio.wait_for(asked.wait(), 5)
    monkeypatch.undo()
    there.executor.end(task.id, Finished({}))
    assert (await reader)[-1].status == TaskStatus.COMPLETED
    assert not here.live.feeds and not here.live.streams


async def test_a_cursor_from_the_future_still_hears_the_end(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    reader = asyncio.ensure_future(server.story(task, after=10**9))
    await server.until(lambda: server.live.streams)
    server.executor.end(task.id, Finished({}))
    assert (await reader)[-1].status == TaskStatus.COMPLETED
