"""Two servers on one PostgreSQL: nothing is claimed twice, ended twice, or started twice."""

from __future__ import annotations

import asyncio

import pytest

from bakehouse.core.errors import Conflict
from bakehouse.core.task import Task
from bakehouse.store import open_store
from bakehouse.store.sql import SqlStore
from tests.store.conftest import OpenStore
from tests.store.samples import NOW, WAITING, S, make_app, make_task, make_version, move, queued

pytestmark = pytest.mark.parametrize("store_url", ["postgres"], indirect=True)


async def claim_all(store: SqlStore, holder: str) -> list[Task]:
    """Claim from the common line, a few at a time and oldest first, until it is empty."""
    mine: list[Task] = []
    while line := await store.queued(NOW, 20):
        mine += await store.claim([item.id for item in line], holder)
    return mine


async def test_one_line_is_shared_without_doubles(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    made = {(await queued(store, f"owner_{i % 3}")).id for i in range(150)}
    one, two = await asyncio.gather(claim_all(store, "one"), claim_all(other, "two"))
    assert len(one) + len(two) == 150
    assert {task.id for task in one} | {task.id for task in two} == made
    for task in one + two:
        row = await other.get_task(task.id, None)
        assert (row.attempt, row.lease_holder) == (1, task.lease_holder)


async def test_servers_that_touch_the_same_tasks_in_any_order_do_not_fail(
    store: SqlStore, open_another: OpenStore
) -> None:
    other = await open_another()
    tasks = [await queued(store) for _ in range(40)]
    forward, backward = [task.id for task in tasks], [task.id for task in reversed(tasks)]
    for _ in range(10):
        got = await asyncio.gather(store.claim(forward, "one"), other.claim(backward, "two"))
        claimed = [task for part in got for task in part]
        assert sorted(task.id for task in claimed) == sorted(forward)
        rivals = [s.write(move(task, S.QUEUED, requeue=True)) for task in claimed for s in (store, other)]
        answers = await asyncio.gather(*rivals)
        assert sum(answers) == 40


async def test_a_task_ends_once_whoever_ends_it(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    tasks = await store.claim([(await queued(store)).id for _ in range(30)], "one")
    ends = [
        (task, s.write(move(task, status))) for task in tasks for s, status in ((store, S.COMPLETED), (other, S.FAILED))
    ]
    answers = await asyncio.gather(*(answer for _, answer in ends))
    assert sum(answers) == 30


async def test_an_idempotency_key_holds_between_servers(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    rivals = [(s, make_task(idempotency_key=f"k{i}")) for i in range(20) for s in (store, other)]
    answers = await asyncio.gather(*(s.accept(task, WAITING) for s, task in rivals))
    assert sum(answer is None for answer in answers) == 20
    assert await store.count_queued() == 20


async def test_a_cancel_reaches_the_server_that_runs_it(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    task = (await store.claim([(await queued(store)).id], "one"))[0]
    await other.request_cancel(task.id, "owner_a", NOW)
    assert await store.cancel_requests("one") == [task.id]
    assert await store.cancel_requests("two") == []


async def test_a_dead_servers_tasks_are_taken_over_once(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    await store.heartbeat("one", "", -1)
    await store.claim([(await queued(store)).id for _ in range(20)], "one")
    assert {task.id for task in await store.orphans(50)} == {task.id for task in await other.orphans(50)}
    writes = [
        s.write(move(task, S.QUEUED, requeue=True, lost=True)) for s in (store, other) for task in await s.orphans(50)
    ]
    assert sum(await asyncio.gather(*writes)) == 20
    assert await other.orphans(50) == []


async def test_a_webhook_is_handed_to_one_server(store: SqlStore, open_another: OpenStore) -> None:
    other = await open_another()
    tasks = await store.claim([(await queued(store)).id for _ in range(20)], "one")
    assert all(await asyncio.gather(*(store.write(move(task, S.FAILED, deliver="http://x")) for task in tasks)))
    got = await asyncio.gather(*(s.due_webhooks(NOW + 1, 5) for s in (store, other) * 4))
    ids = [item.id for part in got for item in part]
    assert len(ids) == len(set(ids)) == 20


async def test_two_servers_may_start_and_deploy_at_once(store_url: str) -> None:
    stores = [open_store(store_url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    owners = await asyncio.gather(*(store.ensure_owner("local", NOW) for store in stores))
    assert len({owner.id for owner in owners}) == 1
    users = await asyncio.gather(*(store.ensure_user(owners[0].id, "ann", NOW) for store in stores))
    assert len({user.id for user in users}) == 1

    async def deploy(store: object) -> str:
        assert isinstance(store, SqlStore)
        for _ in range(3):
            try:
                app, _version = await store.create_version(make_app(), make_version(make_app()))
            except Conflict:
                continue  # the other one was first; what a caller does is to ask again
            return app.id
        raise AssertionError("never deployed")

    assert len(set(await asyncio.gather(*(deploy(store) for store in stores)))) == 1
    for store in stores:
        assert await store.check_integrity() == []
        await store.close()
