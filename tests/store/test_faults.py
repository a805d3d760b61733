"""What goes wrong: failing operations, deadlocks, connections that break, a database that is away."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, text

from bakehouse.core.errors import Conflict, NotConfigured, Unavailable
from bakehouse.core.task import TaskWrite
from bakehouse.store import open_store
from bakehouse.store.connection import Connection
from bakehouse.store.sql import SqlStore
from bakehouse.store.tables import webhooks
from tests.store.conftest import OpenStore
from tests.store.samples import WAITING, S, claimed, logged, make_task, move, queued


async def blocked(store: SqlStore) -> threading.Event:
    """Hold the writer up until the event is set, so that what is handed over next becomes one batch."""
    began, go = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        began.set()
        assert go.wait(20)

    store._submit(wait)
    await asyncio.to_thread(began.wait, 20)
    return go


# ---- group commit ---------------------------------------------------------------------------------------------


async def test_a_failing_operation_takes_no_neighbour_with_it(store: SqlStore) -> None:
    task = await queued(store)
    go = await blocked(store)
    good = [store.accept(make_task(), WAITING) for _ in range(3)]
    doubled = store.accept(task, WAITING)
    refused = store.delete_task(task.id, "owner_a")
    work = asyncio.gather(*good, doubled, refused, return_exceptions=True)
    await asyncio.sleep(0)
    go.set()
    answers = await work
    assert answers[:3] == [None, None, None]
    assert isinstance(answers[3], Conflict)
    assert isinstance(answers[4], Conflict)
    assert await store.count_queued() == 4


async def test_what_an_operation_did_before_it_refused_is_undone(store: SqlStore) -> None:
    def half(connection: Connection) -> None:
        row = ("hook_x", "task_x", "o", "u", 0, 1, None)
        connection.run(insert(webhooks).values(row))
        raise Conflict("no")

    go = await blocked(store)
    neighbour = store.accept(make_task(), WAITING)
    work = asyncio.gather(store._change(half), neighbour, return_exceptions=True)
    await asyncio.sleep(0)
    go.set()
    answers = await work
    assert isinstance(answers[0], Conflict)
    assert answers[1] is None
    assert await store.due_webhooks(2**60, 5) == []


async def test_waiting_changes_share_a_commit(store: SqlStore) -> None:
    commits = 0
    writer: Any = store._writer
    plain = writer._connection.plain

    def counted(statement: str) -> Any:
        nonlocal commits
        commits += statement == "COMMIT"
        return plain(statement)

    go = await blocked(store)
    writer._connection.plain = counted
    work = asyncio.gather(*(store.accept(make_task(), WAITING) for _ in range(50)))
    await asyncio.sleep(0)
    go.set()
    await work
    assert commits == 2  # the one that was held up, and one for all fifty


async def test_a_lazy_write_needs_no_company(store: SqlStore) -> None:
    task = await claimed(store)
    assert await asyncio.wait_for(store.write(TaskWrite(task.id, 1, (logged(4, S.SCHEDULED),)), lazy=True), 5)


async def test_closing_commits_what_waits(open_another: OpenStore) -> None:
    store = await open_another()
    go = await blocked(store)
    work = asyncio.gather(*(store.accept(make_task(), WAITING) for _ in range(20)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert await work == [None] * 20
    await store.close()
    with pytest.raises(Unavailable):
        await store.accept(make_task(), WAITING)
    with pytest.raises(Unavailable):
        await store.write(TaskWrite("task_x", 1, (logged(4, S.RUNNING),)))
    again = await open_another()
    assert await again.count_queued() == 20


async def test_a_cancelled_caller_does_not_stop_the_writer(store: SqlStore) -> None:
    go = await blocked(store)
    impatient = asyncio.create_task(store.accept(make_task(), WAITING))
    await asyncio.sleep(0)
    impatient.cancel()
    patient = asyncio.create_task(store.accept(make_task(), WAITING))
    await asyncio.sleep(0)
    go.set()
    assert await patient is None
    assert await store.count_queued() == 2


# ---- durability -----------------------------------------------------------------------------------------------


async def test_commits_are_synced_to_disk(store: SqlStore) -> None:
    def asked(connection: Connection) -> tuple[Any, ...]:
        if connection.dialect.name == "sqlite":
            return tuple(connection.plain(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode"))
        return tuple(connection.plain(f"SHOW {name}").fetchone()[0] for name in ("synchronous_commit",))

    expected = {"sqlite": (2, "wal"), "postgresql": ("on",)}[store._dialect.name]
    assert await store._change(asked) == expected


async def test_the_database_file_is_private(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    await store.open()
    await store.accept(make_task(), WAITING)
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {"a.db", "a.db-wal", "a.db-shm"}
    for file in files:
        assert file.stat().st_mode & 0o077 == 0, file
    await store.close()


# ---- a database that is away ----------------------------------------------------------------------------------


@pytest.fixture
async def postgres_store(postgres_url: str) -> Any:
    store = open_store(postgres_url)
    await store.open()
    yield store
    assert await store.check_integrity() == []
    await store.close()


def end_connections(url: str) -> int:
    """Terminate every other connection to the database; how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return len(connection.execute(f"SELECT pg_terminate_backend(pid) {others}").fetchall())


async def test_a_broken_connection_is_replaced_and_nothing_is_lost_or_doubled(
    postgres_store: SqlStore, postgres_url: str
) -> None:
    tasks = [make_task(idempotency_key=f"k{i}") for i in range(200)]
    refused = []

    async def accept(task: Any) -> None:
        for _ in range(10):
            try:
                await postgres_store.accept(task, WAITING)
                return
            except Unavailable as error:
                refused.append(error)

    async def ends() -> int:
        return sum([await asyncio.to_thread(end_connections, postgres_url) for _ in range(5)])

    answers = await asyncio.gather(ends(), *(accept(task) for task in tasks))
    assert answers[0]
    assert await postgres_store.count_queued() == 200
    for task in tasks:
        assert (await postgres_store.get_task(task.id, None)).idempotency_key == task.idempotency_key


async def test_a_connection_lost_between_two_calls_is_not_even_noticed(
    postgres_store: SqlStore, postgres_url: str
) -> None:
    task = await queued(postgres_store)
    assert end_connections(postgres_url) > 0
    assert (await postgres_store.get_task(task.id, None)).id == task.id
    assert len(await postgres_store.claim([task.id], "holder_a")) == 1


async def test_a_commit_without_an_answer_is_unavailable_and_never_run_twice(postgres_store: SqlStore) -> None:
    writer: Any = postgres_store._writer
    connection = writer._connection
    plain = connection.plain

    def unanswered(statement: str) -> Any:
        answer = plain(statement)
        if statement == "COMMIT":
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return answer

    task = make_task()
    connection.plain = unanswered
    with pytest.raises(Unavailable):
        await postgres_store.accept(task, WAITING)
    assert (await postgres_store.get_task(task.id, None)).id == task.id
    assert await postgres_store.write(move((await postgres_store.claim([task.id], "h"))[0], S.RUNNING))


async def test_a_deadlock_is_run_again(postgres_store: SqlStore, postgres_url: str) -> None:
    """Another client takes the locks the other way round; one of the two is the victim, and the store is not hurt."""
    one, two = sorted([await queued(postgres_store), await queued(postgres_store)], key=lambda task: task.id)
    locked, statement = threading.Event(), "SELECT 1 FROM tasks WHERE id = %s FOR UPDATE"

    rivals: list[int] = []

    def rival() -> None:
        with psycopg.connect(postgres_url) as connection:
            # It waits patiently, so that it is the store which finds the deadlock.
            connection.execute("SET deadlock_timeout = '60s'")
            connection.execute(statement, (two.id,))
            rivals.append(connection.info.backend_pid)
            locked.set()
            connection.execute(statement, (one.id,))

    def slow(connection: Connection) -> None:
        connection.all(text(f"SELECT 1 FROM tasks WHERE id = '{one.id}' FOR UPDATE"))
        locked.wait(20)

    thread = threading.Thread(target=rival)
    runs = 0

    def both(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        connection.plain("SET LOCAL deadlock_timeout = '100ms'")
        slow(connection)
        # Only the rival counts: others of this cluster wait too, and a deadlock is looked for once per wait.
        waiting = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {rivals[0]}"
        while runs == 1 and connection.plain(waiting).fetchone()[0] == 0:
            pass
        connection.plain(f"UPDATE tasks SET lane = 'other' WHERE id = '{two.id}'")

    thread.start()
    await postgres_store._change(both)
    await asyncio.to_thread(thread.join)
    assert runs == 2
    assert (await postgres_store.get_task(two.id, None)).lane == "other"


async def test_an_absent_database_is_unavailable(tmp_path: Path) -> None:
    for url in (f"postgresql://nobody@/none?host={tmp_path}", f"sqlite:///{tmp_path}/missing/a.db"):
        with pytest.raises(Unavailable):
            await open_store(url).open()


async def test_a_busy_file_is_waited_for(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    await store.open()
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.accept(make_task(), WAITING))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    other.execute("COMMIT")
    other.close()
    assert await waiting is None
    await store.close()


async def test_a_locked_file_is_waited_for_in_a_thread(tmp_path: Path) -> None:
    """A read on the event loop meets a lock: it goes to a thread instead of holding the loop up."""
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    assert isinstance(store, SqlStore)
    await store.open()
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    rival = sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0)
    holder.execute("BEGIN IMMEDIATE")
    threads = []

    def work(connection: Connection) -> int:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            rival.execute("BEGIN IMMEDIATE")
        return 1

    assert await store._read_point(work) == 1
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()
    for connection in (holder, rival):
        connection.close()
    await store.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "nonsense"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured):
        open_store(url)
