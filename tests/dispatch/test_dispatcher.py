"""Every accepted task reaches one end, whatever fails on its way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bakehouse.core.app import Version
from bakehouse.core.errors import Unavailable
from bakehouse.core.executor import Finished, Lost, Moved
from bakehouse.core.task import Event, TaskStatus
from bakehouse.store.base import Store
from tests.dispatch.support import Server, make_server, make_task


async def test_a_task_runs_to_its_end_and_leaves_nothing_behind(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    server.executor.end(task.id, Finished({"n": 1}))
    assert (await server.ended(task.id)).output == '{"n":1}'
    dispatcher = server.dispatcher
    assert not server.live.feeds and not dispatcher.running and not dispatcher.backlog.running
    assert not dispatcher.backlog and not dispatcher._claiming


async def test_a_cancel_while_the_version_loads_reaches_the_call(server: Server) -> None:
    loading, go = asyncio.Event(), asyncio.Event()

    async def versions(version_id: str) -> Any:
        loading.set()
        await go.wait()

    server.versions = versions
    task = await server.queue(make_task(version_id="ver_1"))
    await asyncio.wait_for(loading.wait(), 5)
    server.tell_cancelled(await server.store.request_cancel(task.id, None, server.clock.now()))
    go.set()
    assert (await server.ended(task.id)).status == TaskStatus.CANCELLED


async def test_a_version_that_cannot_be_read_now_is_asked_for_again(server: Server) -> None:
    asked: list[str] = []

    async def versions(version_id: str) -> Version | None:
        asked.append(version_id)
        if len(asked) == 1:
            raise Unavailable("the database is away")
        return None

    server.versions = versions
    task = await server.queue(make_task(version_id="ver_1"))
    await server.until(lambda: server.executor.calls)
    server.executor.end(task.id, Finished())
    row = await server.ended(task.id)
    assert (row.status, row.failures) == (TaskStatus.COMPLETED, 0)


async def test_an_executor_that_raises_fails_the_task_and_not_the_server(server: Server) -> None:
    server.executor.refuse = RuntimeError("out of luck")
    task = await server.queue()
    row = await server.ended(task.id)
    assert row.status == TaskStatus.FAILED and "out of luck" in (row.error or "")
    assert not server.dispatcher.running


async def test_news_that_cannot_be_read_do_not_hold_up_a_claimed_task(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **kwargs: Any) -> list[Event]:
        raise Unavailable("the database is away")

    first, second = make_task(), make_task()
    for task in (first, second):
        await server.queue(task)
    feed = server.live.latest(first.id)
    assert feed is not None
    feed.task.last_seq = 0  # as a feed that another server's moves have not reached
    monkeypatch.setattr(server.store, "events", away)
    await server.until(lambda: len(server.executor.calls) == 2)
    for task in (first, second):
        server.executor.end(task.id, Finished())
        await server.ended(task.id)
    assert not server.dispatcher._claiming


async def test_a_late_scan_does_not_take_a_running_task_for_another_servers(server: Server) -> None:
    task = await server.queue()
    stale = await server.store.queued(2**62, 10)
    await server.until(lambda: server.executor.calls)
    server.dispatcher.line_up(stale, set())
    await server.until(server.dispatcher.backlog.idle)
    feed = server.live.latest(task.id)
    assert feed is not None and not feed.remote and not server.dispatcher.backlog
    server.executor.end(task.id, Finished())
    await server.ended(task.id)


@pytest.mark.parametrize("asked_first", [True, False])
async def test_a_cancel_between_outcome_and_commit_of_a_lost_attempt_holds(server: Server, asked_first: bool) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    await server.until(lambda: server.live.feeds[task.id].task.status == TaskStatus.RUNNING)
    asking = server.store.request_cancel(task.id, None, server.clock.now())
    results = await asking if asked_first else []
    server.executor.end(task.id, Lost("killed"))
    results = results or await asking
    server.tell_cancelled(results)
    assert (await server.ended(task.id)).status == TaskStatus.CANCELLED
    assert not server.live.feeds and not server.dispatcher.backlog


async def test_a_claim_whose_answer_was_lost_is_found_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = server.store.claim

    async def unanswered(task_ids: Any, holder: str) -> Any:
        await claim(task_ids, holder)
        monkeypatch.undo()
        raise Unavailable("the database did not confirm the commit")

    monkeypatch.setattr(server.store, "claim", unanswered)
    task = await server.queue()
    await server.until(lambda: not server.dispatcher._claiming and not server.dispatcher.backlog)
    assert (await server.row(task.id)).status == TaskStatus.SCHEDULED
    for _ in range(2):
        await server.recovery._lease()
    await server.until(lambda: server.executor.calls)
    server.executor.end(task.id, Finished())
    row = await server.ended(task.id)
    assert (row.status, row.failures, row.attempt) == (TaskStatus.COMPLETED, 0, 2)


async def test_a_task_whose_acceptance_was_not_heard_is_found(server: Server) -> None:
    task = make_task()
    await server.store.accept(task, [Event(1, 0, "status", TaskStatus.RECEIVED, 0),
                                     Event(2, 0, "status", TaskStatus.QUEUED, 0)])  # fmt: skip
    await server.recovery._lease()
    await server.until(lambda: server.executor.calls)
    server.executor.end(task.id, Finished())
    await server.ended(task.id)


async def test_a_running_task_is_no_stray(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    for _ in range(3):
        await server.recovery._lease()
    server.executor.end(task.id, Finished())
    assert (await server.ended(task.id)).attempt == 1


async def test_two_servers_agree_on_who_waits(store: Store) -> None:
    here, there = make_server(store, sole=False, room=0), make_server(store, holder="srv_b", sole=False)
    for server in (here, there):
        await server.recovery.start_up()
    task = await here.queue()
    await there.recovery._look_for_work()
    await there.until(lambda: there.executor.calls)
    reader = asyncio.ensure_future(here.story(task))
    await here.recovery._look_for_work()
    assert not here.dispatcher.backlog
    there.executor.end(task.id, Finished({"by": "b"}))
    story = await reader
    assert story[-1].status == TaskStatus.COMPLETED and story[-1].task.output == '{"by":"b"}'
    assert not here.live.feeds


async def test_a_queued_task_that_is_cancelled_is_told_like_any_other_end(server: Server) -> None:
    server.executor.room = 0
    task = await server.queue()
    server.tell_cancelled(await server.store.request_cancel(task.id, None, server.clock.now()))
    assert [t.status for t in server.finished] == [TaskStatus.CANCELLED]
    assert not server.live.feeds and not server.dispatcher.backlog


async def test_a_lost_lease_ends_the_attempt_here_and_frees_its_place(store: Store) -> None:
    here, there = make_server(store, sole=False), make_server(store, holder="srv_b", sole=False, room=0)
    for server in (here, there):
        await server.recovery.start_up()
    task = await here.queue()
    await here.until(lambda: here.live.feeds[task.id].task.status == TaskStatus.RUNNING)
    await store.retire("srv_a")
    here.executor.room = 0
    await there.recovery._lease()
    assert (await here.row(task.id)).status == TaskStatus.QUEUED
    here.executor.end(task.id, Finished({"too": "late"}))
    await here.until(lambda: not here.dispatcher.running)
    assert not here.finished and (await here.row(task.id)).status == TaskStatus.QUEUED
    assert not here.dispatcher.backlog.running
    there.executor.room = 1
    there.dispatcher.wake()
    await there.until(lambda: there.executor.calls)
    there.executor.end(task.id, Finished({"in": "time"}))
    assert (await there.ended(task.id)).output == '{"in":"time"}'


async def test_a_quiet_attempt_that_was_taken_away_gives_way_to_a_newer_one(store: Store) -> None:
    here, there = make_server(store, sole=False), make_server(store, holder="srv_b", sole=False, room=0)
    for server in (here, there):
        await server.recovery.start_up()
    task = await here.queue()
    await here.until(lambda: here.live.feeds[task.id].task.status == TaskStatus.RUNNING)
    await store.retire("srv_a")
    await there.recovery._lease()
    for _ in range(2):
        await here.recovery._lease()  # registers again, and sees twice that the task is no longer its own
    await here.recovery._look_for_work()
    await here.until(lambda: here.executor.started == [task.id, task.id])
    assert (task.id, "stale") in here.executor.cancelled
    here.executor.end(task.id, Finished({"attempt": 2}))
    assert (await here.ended(task.id)).output == '{"attempt":2}'
    assert not here.dispatcher.running and not here.dispatcher.backlog.running


async def test_drain_ends_and_hands_back_also_when_the_database_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(write: Any, *, lazy: bool = False) -> asyncio.Future[bool]:
        lost: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lost.set_exception(Unavailable("away"))
        return lost

    async def no_row(*args: Any) -> Any:
        raise Unavailable("away")

    await server.queue()
    await server.until(lambda: server.executor.calls)
    monkeypatch.setattr("bakehouse.dispatch.dispatcher.HAND_BACK_SECONDS", 0.05)
    monkeypatch.setattr(server.store, "write", away)
    monkeypatch.setattr(server.store, "get_task", no_row)
    async with asyncio.timeout(5):
        await server.dispatcher.drain(0.01)
    assert not server.dispatcher._work


async def test_a_drain_hands_tasks_back_and_answers_those_who_wait(server: Server) -> None:
    server.executor.room = 1
    running, waiting = await server.queue(), await server.queue()
    await server.until(lambda: server.executor.calls)
    feeds = [server.live.feeds[task.id] for task in (running, waiting)]
    await server.dispatcher.drain(0.05)
    assert all(feed.done.done() for feed in feeds)
    assert (await server.row(running.id)).status == TaskStatus.QUEUED
    assert (await server.row(running.id)).failures == 0


async def test_a_cancelled_call_stays_cancelled_when_its_deadline_passes(server: Server) -> None:
    task = await server.queue(make_task(timeout=0.02))
    await server.until(lambda: server.executor.calls)
    _, sink = server.executor.calls.pop(task.id)  # an app that does not heed
    server.dispatcher.cancel_requested(task.id)
    assert server.executor.cancelled == [(task.id, "cancelled")]
    await asyncio.sleep(0.05)
    sink(Finished(cancelled=True))
    assert (await server.ended(task.id)).status == TaskStatus.CANCELLED


async def test_a_move_after_the_end_changes_nothing(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    _, sink = server.executor.calls.pop(task.id)
    sink(Finished({}))
    sink(Moved(TaskStatus.UPLOADING))
    assert (await server.ended(task.id)).status == TaskStatus.COMPLETED
