"""Tasks: accepted once, claimed once, written by the newest attempt only, ended once."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from bakehouse.core.errors import Conflict, NotFound
from bakehouse.core.file import TaskFile
from bakehouse.core.task import InboxItem, Task, TaskWrite
from bakehouse.store.hot import row_of, task_of
from bakehouse.store.sql import SqlStore
from bakehouse.store.tables import tasks
from tests.store.samples import NOW, WAITING, S, claimed, ended, logged, make_file, make_task, move, moved, queued


def test_a_row_is_a_task_by_position() -> None:
    assert [column.name for column in tasks.c] == [field.name for field in dataclasses.fields(Task)]
    task = make_task(timeout=1.5, snapshot="{}", status=S.RUNNING)
    assert task_of(row_of(task)) == task


async def test_an_accepted_task_is_there_with_its_story(store: SqlStore) -> None:
    task = await queued(store, options='{"a":"\\u0000ä"}', timeout=2.5, run_at=7, parent_id="task_p")
    assert await store.get_task(task.id, "owner_a") == task
    assert await store.events(task.id) == list(WAITING)


async def test_another_owner_does_not_find_it(store: SqlStore) -> None:
    task = await queued(store)
    with pytest.raises(NotFound):
        await store.get_task(task.id, "owner_b")


async def test_accepted_and_claimed_in_one_step(store: SqlStore) -> None:
    task = make_task(status=S.SCHEDULED, attempt=1, last_seq=3, lease_holder="holder_a")
    assert await store.accept(task, [*WAITING, moved(3, S.SCHEDULED, 1)]) is None
    assert await store.claim([task.id], "holder_b") == []
    assert await store.write(move(task, S.COMPLETED))


async def test_input_files_are_linked(store: SqlStore) -> None:
    file, task = make_file(), make_task()
    await store.create_file(file)
    link = TaskFile(task.id, file.id, "input", NOW)
    await store.accept(task, WAITING, [link])
    assert await store.task_files(task.id, "input") == [(link, file)]
    assert await store.task_files(task.id, "output") == []


async def test_an_idempotency_key_is_taken_once_per_owner(store: SqlStore) -> None:
    first = await queued(store, idempotency_key="k")
    assert await store.accept(make_task("owner_b", idempotency_key="k"), WAITING) is None
    earlier = await store.accept(make_task(idempotency_key="k"), WAITING)
    assert earlier == first


async def test_of_racing_accepts_with_one_key_one_wins(store: SqlStore) -> None:
    rivals = [make_task(idempotency_key="k") for _ in range(20)]
    answers = await asyncio.gather(*(store.accept(task, WAITING) for task in rivals))
    winners = [task for task, answer in zip(rivals, answers, strict=True) if answer is None]
    assert len(winners) == 1
    assert {answer.id for answer in answers if answer} == {winners[0].id}
    assert await store.count_queued() == 1


async def test_claim_takes_only_what_waits(store: SqlStore) -> None:
    waiting, later, gone = await queued(store), await queued(store, run_at=2**60), await ended(store)
    got = await store.claim([waiting.id, later.id, gone.id, "task_none"], "holder_a")
    assert [(task.id, task.status, task.attempt, task.lease_holder) for task in got] == [
        (waiting.id, S.SCHEDULED, 1, "holder_a")
    ]
    assert got[0] == await store.get_task(waiting.id, None)
    assert (await store.events(waiting.id, after=2))[0].status == S.SCHEDULED


async def test_a_stale_attempt_is_refused(store: SqlStore) -> None:
    first = await claimed(store)
    assert await store.write(move(first, S.QUEUED, requeue=True, lost=True))
    second = (await store.claim([first.id], "holder_b"))[0]
    assert (second.attempt, second.failures) == (2, 1)
    late = dataclasses.replace(first, last_seq=second.last_seq)
    assert not await store.write(move(late, S.COMPLETED))
    assert await store.get_task(first.id, None) == second


@pytest.mark.parametrize("seq", [3, 5], ids=["doubled", "gap"])
async def test_a_write_out_of_step_is_refused(store: SqlStore, seq: int) -> None:
    task = await claimed(store)
    assert not await store.write(move(task, S.RUNNING, seq=seq))
    assert len(await store.events(task.id)) == 3


async def test_an_illegal_move_is_refused(store: SqlStore) -> None:
    task = await claimed(store)
    assert await store.write(move(task, S.UPLOADING))
    task = await store.get_task(task.id, None)
    assert not await store.write(move(task, S.RUNNING))
    backwards = (moved(5, S.COMPLETED, 1), moved(6, S.RUNNING, 1))
    with pytest.raises(Conflict):
        await store.write(TaskWrite(task.id, 1, backwards, status=S.RUNNING))


async def test_the_end_clears_lease_and_snapshot(store: SqlStore) -> None:
    task = await claimed(store)
    await store.save_snapshots([(task.id, 1, '{"p":1}')])
    assert (await store.get_task(task.id, None)).snapshot == '{"p":1}'
    begun = TaskWrite(task.id, 1, (moved(4, S.RUNNING, 1, NOW + 5), logged(5, S.RUNNING)), status=S.RUNNING)
    assert await store.write(begun)
    done = TaskWrite(task.id, 1, (moved(6, S.COMPLETED, 1, NOW + 9),), status=S.COMPLETED, output="{}")
    assert await store.write(done)
    task = await store.get_task(task.id, None)
    assert (task.status, task.started_at, task.finished_at, task.output) == (S.COMPLETED, NOW + 5, NOW + 9, "{}")
    assert (task.lease_holder, task.snapshot) == (None, None)
    await store.save_snapshots([(task.id, 1, "late")])
    assert (await store.get_task(task.id, None)).snapshot is None


async def test_an_error_with_odd_characters_is_told(store: SqlStore) -> None:
    task = await claimed(store)
    assert await store.write(move(task, S.FAILED, error="bad \0 and \udc80 ü", error_code="app_error"))
    assert (await store.get_task(task.id, None)).error == "bad � and ? ü"


async def test_a_stale_snapshot_is_ignored(store: SqlStore) -> None:
    task = await claimed(store)
    await store.save_snapshots([(task.id, 2, "{}"), ("task_none", 1, "{}")])
    assert (await store.get_task(task.id, None)).snapshot is None


async def test_lazy_and_eager_writes_of_a_task_keep_their_order(store: SqlStore) -> None:
    task = await claimed(store)
    writes = [store.write(TaskWrite(task.id, 1, (logged(4 + i, S.SCHEDULED),)), lazy=i % 2 == 0) for i in range(40)]
    assert all(await asyncio.gather(*writes))
    assert len(await store.events(task.id, kind="log")) == 40


async def test_exactly_one_of_many_ends_wins(store: SqlStore) -> None:
    task = await claimed(store)
    ends = [S.COMPLETED, S.FAILED, S.CANCELLED] * 5
    answers = await asyncio.gather(*(store.write(move(task, status)) for status in ends))
    assert sum(answers) == 1
    assert (await store.get_task(task.id, None)).status == ends[answers.index(True)]


async def test_events_can_be_paged(store: SqlStore) -> None:
    task = await claimed(store)
    await store.write(TaskWrite(task.id, 1, tuple(logged(4 + i, S.SCHEDULED, text=f'["{i}"]') for i in range(5))))
    assert [event.seq for event in await store.events(task.id, after=4, limit=3)] == [5, 6, 7]
    assert [event.data for event in await store.events(task.id, kind="log", limit=2)] == ['["0"]', '["1"]']


# ---- the waiting line -----------------------------------------------------------------------------------------


async def test_the_waiting_line_is_fair_between_owners(store: SqlStore) -> None:
    many = [await queued(store, "owner_a", created_at=NOW + i) for i in range(10)]
    few = [await queued(store, "owner_b", created_at=NOW + 100 + i) for i in range(2)]
    await queued(store, "owner_b", run_at=NOW + 50)
    line = await store.queued(NOW, 4)
    assert [item.id for item in line] == [many[0].id, many[1].id, few[0].id, few[1].id]
    assert await store.next_due(NOW) == NOW + 50
    assert (await store.count_queued(), await store.count_queued("owner_b")) == (13, 3)


async def test_counts_by_state(store: SqlStore) -> None:
    await queued(store)
    await claimed(store)
    await ended(store)
    assert await store.task_counts() == {S.QUEUED: 1, S.SCHEDULED: 1, S.COMPLETED: 1}


# ---- cancel ---------------------------------------------------------------------------------------------------


async def test_a_waiting_task_is_cancelled_at_once_and_its_webhook_fires(store: SqlStore) -> None:
    task = await queued(store, options='{"webhook":"http://x/"}')
    result = (await store.request_cancel(task.id, "owner_a", NOW + 1))[0]
    assert result.cancelled_now
    assert result.task == await store.get_task(task.id, None)
    assert (result.task.status, result.task.finished_at) == (S.CANCELLED, NOW + 1)
    assert [(item.task_id, item.url) for item in await store.due_webhooks(NOW + 2, 5)] == [(task.id, "http://x/")]


async def test_a_held_task_is_asked_to_stop(store: SqlStore) -> None:
    task = await claimed(store)
    result = (await store.request_cancel(task.id, None, NOW + 1))[0]
    assert (result.cancelled_now, result.task.cancel_requested_at) == (False, NOW + 1)
    assert await store.cancel_requests("holder_a") == [task.id]
    assert await store.write(move(task, S.CANCELLING))
    assert await store.cancel_requests("holder_a") == []


async def test_a_cancel_that_meets_a_requeue_is_not_forgotten(store: SqlStore) -> None:
    task = await claimed(store)
    await store.heartbeat("holder_a", "", 60)
    await store.request_cancel(task.id, None, NOW)
    assert await store.write(move(task, S.QUEUED, requeue=True))
    assert await store.claim([task.id], "holder_a") == []
    assert [orphan.id for orphan in await store.orphans(5)] == [task.id]
    assert [orphan.id for orphan in await store.orphans(5, sole="holder_a")] == [task.id]


async def test_cancel_acts_on_the_whole_tree(store: SqlStore) -> None:
    root = await claimed(store)
    child = await queued(store, parent_id=root.id)
    grandchild, over = await queued(store, parent_id=child.id), await ended(store, parent_id=root.id)
    stranger = await queued(store)
    results = await store.request_cancel(root.id, "owner_a", NOW)
    assert results[0].task.id == root.id
    assert {r.task.id: r.cancelled_now for r in results} == {
        root.id: False, child.id: True, grandchild.id: True, over.id: False,
    }  # fmt: skip
    assert (await store.get_task(stranger.id, None)).cancel_requested_at is None
    assert (await store.get_task(over.id, None)).cancel_requested_at is None


async def test_only_the_owner_cancels(store: SqlStore) -> None:
    task = await queued(store)
    with pytest.raises(NotFound):
        await store.request_cancel(task.id, "owner_b", NOW)
    assert (await store.get_task(task.id, None)).status == S.QUEUED


# ---- leases ---------------------------------------------------------------------------------------------------


async def test_leases_run_by_the_database_clock(store: SqlStore) -> None:
    assert await store.heartbeat("holder_a", "http://a", 60)
    assert await store.heartbeat("holder_a", "http://a2", 60)
    assert await store.holder_address("holder_a") == "http://a2"
    assert await store.heartbeat("holder_b", "http://b", -1)
    assert await store.holder_address("holder_b") is None
    assert not await store.heartbeat("holder_b", "http://b", 60)


async def test_tasks_of_dead_holders_are_orphans(store: SqlStore) -> None:
    await store.heartbeat("holder_a", "", 60)
    await store.heartbeat("holder_b", "", -1)
    mine, expired, unknown = [await claimed(store, holder) for holder in ("holder_a", "holder_b", "holder_c")]
    await queued(store)
    await ended(store)
    assert {task.id for task in await store.orphans(9)} == {expired.id, unknown.id}
    assert {task.id for task in await store.orphans(9, sole="holder_b")} == {mine.id, unknown.id}
    await store.retire("holder_a")
    assert len(await store.orphans(9)) == 3
    assert len(await store.orphans(2)) == 2


# ---- inbox, webhooks, deletion --------------------------------------------------------------------------------


async def test_the_inbox_keeps_order_and_closes_with_the_task(store: SqlStore) -> None:
    task = await queued(store)
    puts = [store.put_inbox(task.id, "owner_a", "message", f"{i}", NOW) for i in range(5)]
    items = await asyncio.gather(*puts)
    assert [item.seq for item in items] == [1, 2, 3, 4, 5]
    assert await store.inbox(task.id, after=4) == [InboxItem(task.id, 5, NOW, "message", "4")]
    over = await ended(store)
    with pytest.raises(Conflict):
        await store.put_inbox(over.id, "owner_a", "message", "{}", NOW)
    with pytest.raises(NotFound):
        await store.put_inbox(task.id, "owner_b", "message", "{}", NOW)


async def test_a_webhook_is_hidden_while_somebody_delivers_it(store: SqlStore) -> None:
    task = await claimed(store)
    assert await store.write(move(task, S.COMPLETED, deliver="http://x/"))
    assert not await store.write(move(task, S.FAILED, deliver="http://x/"))
    (item,) = await store.due_webhooks(NOW, 5)
    assert (item.task_id, item.owner_id, item.tries) == (task.id, "owner_a", 0)
    assert await store.due_webhooks(NOW + 59_000_000, 5) == []
    await store.webhook_retry(item.id, NOW + 10, "503")
    assert [again.tries for again in await store.due_webhooks(NOW + 10, 5)] == [1]
    await store.webhook_retry(item.id, 0, "gave up")
    assert await store.due_webhooks(2**61, 5) == []
    await store.webhook_done(item.id)


async def test_only_ended_tasks_are_deleted_and_nothing_is_left(store: SqlStore) -> None:
    task, over = await queued(store), await ended(store)
    await store.link_task_files([TaskFile(over.id, "file_x", "output", NOW)])
    with pytest.raises(Conflict) as refusal:
        await store.delete_task(task.id, "owner_a")
    assert refusal.value.code == "invalid_transition"
    with pytest.raises(NotFound):
        await store.delete_task(over.id, "owner_b")
    await store.delete_task(over.id, "owner_a")
    with pytest.raises(NotFound):
        await store.get_task(over.id, None)
    assert await store.events(over.id) == []


async def test_old_tasks_are_purged(store: SqlStore) -> None:
    old = [await ended(store) for _ in range(3)]
    await queued(store)
    assert await store.purge_tasks(NOW, 10) == 0
    assert await store.purge_tasks(NOW + 1, 2) == 2
    assert await store.purge_tasks(NOW + 1, 2) == 1
    for task in old:
        with pytest.raises(NotFound):
            await store.get_task(task.id, None)
