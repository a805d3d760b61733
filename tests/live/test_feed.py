"""A feed never blocks its publisher, never grows for a slow reader, and never shows a thing twice."""

from __future__ import annotations

import asyncio

from bakehouse.core.task import Event, Task, TaskStatus
from bakehouse.live.base import HEAVY, HEAVY_LIMIT, KEPT_ENCODED, KEPT_LOG_BYTES, PENDING_LIMIT, Feed, Update, is_heavy
from bakehouse.live.memory import MemoryLive


def task() -> Task:
    return Task("task_1", "app", "own", "usr", "task_1", TaskStatus.QUEUED, "lane", "run", "{}", 0, 0)


def status(seq: int, state: TaskStatus) -> Event:
    return Event(seq, seq, "status", state, 1)


def log(seq: int, text: str) -> Event:
    return Event(seq, seq, "log", TaskStatus.RUNNING, 1, text)


def commit(feed: Feed, *events: Event) -> None:
    feed.task.status, feed.task.last_seq = events[-1].status, events[-1].seq
    feed.commit(list(events), lambda event: [event.data or ""])


async def test_durable_updates_are_kept_and_pushed_once() -> None:
    feed = Feed(task())
    commit(feed, status(1, TaskStatus.RECEIVED), status(2, TaskStatus.QUEUED))
    reader = feed.subscribe()
    commit(feed, status(3, TaskStatus.RUNNING), log(4, "hello"))
    assert [(u.seq, u.logs) for u in await reader.next()] == [(3, None), (4, ["hello"])]
    assert [u.seq for u in feed.since(0) or []] == [1, 2, 3, 4]
    assert [u.seq for u in feed.since(2) or []] == [3, 4]
    assert feed.since(4) == []


async def test_an_update_is_encoded_once_for_all_readers() -> None:
    feed = Feed(task())
    readers = [feed.subscribe() for _ in range(100)]
    commit(feed, status(1, TaskStatus.RUNNING))
    calls = 0

    def encode(update: Update) -> bytes:
        nonlocal calls
        calls += 1
        return b"%d" % update.seq

    for reader in readers:
        (update,) = await reader.next()
        assert update.bytes_for("x", encode) == b"1"
    assert calls == 1


async def test_a_slow_reader_is_marked_behind_and_stays_small() -> None:
    feed = Feed(task())
    slow = feed.subscribe()
    for number in range(10 * PENDING_LIMIT):
        feed.progress = {"current": number, "total": 1}
        feed.progressed(number)
        assert len(slow.pending) <= PENDING_LIMIT
    assert slow.behind
    assert (await slow.next())[-1].progress == {"current": 10 * PENDING_LIMIT - 1, "total": 1}


async def test_old_logs_leave_memory_and_are_pointed_to_the_store() -> None:
    feed = Feed(task())
    commit(feed, status(1, TaskStatus.RUNNING))
    for seq in range(2, 20):
        commit(feed, log(seq, "x" * (KEPT_LOG_BYTES // 4)))
    assert sum(len(u.logs[0]) for u in feed.kept if u.logs) <= KEPT_LOG_BYTES
    assert feed.since(0) is None
    assert feed.since(18) is not None


async def test_live_only_updates_repeat_the_last_seq_and_a_new_attempt_clears_them() -> None:
    feed = Feed(task())
    reader = feed.subscribe()
    commit(feed, status(1, TaskStatus.RUNNING))
    feed.partial = {"text": "half"}
    feed.progressed(5)
    await asyncio.sleep(0)
    first, live = await reader.next()
    assert (first.durable, live.durable, live.seq, live.partial) == (True, False, 1, {"text": "half"})
    commit(feed, status(2, TaskStatus.QUEUED))
    assert feed.partial is None and feed.snapshot().partial is None


async def test_the_end_is_told_to_waiters() -> None:
    feed = Feed(task())
    waiter = asyncio.ensure_future(asyncio.wait([feed.done], timeout=5))
    commit(feed, status(1, TaskStatus.RUNNING))
    assert not feed.done.done()
    commit(feed, status(2, TaskStatus.COMPLETED))
    await waiter
    assert feed.done.result().status == TaskStatus.COMPLETED


async def test_a_closed_feed_is_forgotten_and_a_remote_one_can_come_home() -> None:
    live = MemoryLive()
    remote = live.open(task(), remote=True)
    claimed = task()
    assert live.open(claimed) is remote and not remote.remote and remote.task is not claimed
    reader = remote.subscribe()
    assert live.streams == 1
    reader.close()
    live.close("task_1")
    assert live.latest("task_1") is None and live.streams == 0


async def test_large_partial_outputs_are_held_a_few_times_at_most() -> None:
    feed = Feed(task())
    slow = feed.subscribe()
    for number in range(1, 50):
        feed.partial = {"text": "x" * (HEAVY + 1), "n": number}
        feed.progressed(number)
        commit(feed, log(number, "a line"))
    assert sum(update.partial is not None for update in slow.pending) <= HEAVY_LIMIT and slow.behind
    assert [update.partial for update in feed.since(0) or []] == [None] * 49, "history holds no old partial output"
    assert feed.snapshot().partial["n"] == 49


async def test_old_updates_keep_no_lines() -> None:
    feed = Feed(task())
    for number in range(1, 2 * KEPT_ENCODED + 1):
        commit(feed, log(number, "a line"))
    for update in feed.since(0) or []:
        assert update.bytes_for("x", lambda u: b"%d" % u.seq) == b"%d" % update.seq
    assert sum(bool(update.encoded) for update in feed.kept) == KEPT_ENCODED


def test_what_is_heavy() -> None:
    light = [None, {}, {"text": "short"}, [0.5] * 100, {"a": {"b": ["x" * 1000] * 10}}]
    heavy = ["x" * (HEAVY + 1), [0.5] * HEAVY, {"a": {"b": ["x" * 1000] * 20}}, {str(n): n for n in range(HEAVY)}]
    assert [is_heavy(value) for value in light] == [False] * len(light)
    assert [is_heavy(value) for value in heavy] == [True] * len(heavy)
