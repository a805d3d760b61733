"""An attempt's writes are acknowledged once and in order, whatever the database answers in between."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bakehouse.core.errors import NotFound, Unavailable
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.dispatch.ledger import Ledger


def task(last_seq: int = 3, attempt: int = 1, status: TaskStatus = TaskStatus.RUNNING) -> Task:
    return Task(
        "task_1", "app", "own", "usr", "task_1", status, "lane", "run", "{}", 0, 0, attempt=attempt, last_seq=last_seq
    )


def write(*seqs: int, status: TaskStatus = TaskStatus.RUNNING) -> TaskWrite:
    return TaskWrite("task_1", 1, tuple(Event(seq, 0, "log", status, 1, "[]") for seq in seqs))


class FarDatabase:
    """The database as a ledger sees it over a bad line: answers and rows are scripted."""

    def __init__(self, row: Task | None) -> None:
        self.row = row
        self.sent: list[TaskWrite] = []
        self.futures: list[asyncio.Future[bool]] = []
        self.away = 0
        self.work: list[asyncio.Task[None]] = []

    def write(self, write: TaskWrite, *, lazy: bool) -> asyncio.Future[bool]:
        self.sent.append(write)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def read(self, task_id: str) -> Task:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        if self.row is None:
            raise NotFound("gone")
        return self.row

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.work.append(asyncio.ensure_future(work))

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if self.work:
            await asyncio.wait(self.work)


class Notes:
    def __init__(self, database: FarDatabase, claimed: Task | None = None) -> None:
        self.committed: list[int] = []
        self.stale = 0
        self.ledger = Ledger(database, claimed or task(), self._committed, self._stale)

    def _committed(self, write: TaskWrite) -> None:
        self.committed += [event.seq for event in write.events]

    def _stale(self) -> None:
        self.stale += 1


async def test_answers_in_order() -> None:
    database = FarDatabase(task())
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    notes.ledger.submit(write(5, 6), lazy=False)
    assert notes.ledger.busy
    for future in database.futures:
        future.set_result(True)
    await database.settle()
    assert notes.committed == [4, 5, 6] and not notes.ledger.busy


async def test_a_committed_write_whose_answer_was_lost_is_not_sent_twice() -> None:
    database = FarDatabase(task(last_seq=4))
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    database.futures[0].set_exception(Unavailable("connection lost"))
    await database.settle()
    assert notes.committed == [4] and len(database.sent) == 1 and notes.stale == 0


async def test_lost_writes_are_sent_again_in_order_with_those_that_came_meanwhile() -> None:
    database = FarDatabase(task(last_seq=3))
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    notes.ledger.submit(write(5), lazy=True)
    database.futures[0].set_exception(Unavailable("connection lost"))
    await asyncio.sleep(0)
    notes.ledger.submit(write(6), lazy=False)
    database.futures[1].set_result(False)
    await database.settle()
    assert [w.events[0].seq for w in database.sent] == [4, 5, 4, 5, 6]
    for future in database.futures[2:]:
        future.set_result(True)
    await database.settle()
    assert notes.committed == [4, 5, 6] and notes.stale == 0


async def test_another_attempt_makes_this_one_stale_once() -> None:
    database = FarDatabase(task(last_seq=9, attempt=2))
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    notes.ledger.submit(write(5), lazy=True)
    for future in database.futures:
        future.set_result(False)
    await database.settle()
    assert notes.committed == [] and notes.stale == 1


async def test_a_deleted_task_is_stale() -> None:
    database = FarDatabase(None)
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    database.futures[0].set_result(False)
    await database.settle()
    assert notes.stale == 1


async def test_a_write_that_is_refused_again_and_again_gives_up() -> None:
    database = FarDatabase(task(last_seq=3))
    notes = Notes(database)
    notes.ledger.submit(write(4), lazy=True)
    for _ in range(10):
        if not database.futures[-1].done():
            database.futures[-1].set_result(False)
        await database.settle()
    assert notes.stale == 1 and len(database.sent) == 4


async def test_a_seq_that_another_server_wrote_is_no_answer() -> None:
    taken = task(last_seq=4, status=TaskStatus.QUEUED)
    taken.updated_at = 77  # requeued by a server that took this one for dead
    mine = task()
    mine.lease_holder = "srv_a"
    database = FarDatabase(taken)
    notes = Notes(database, mine)
    notes.ledger.submit(write(4, status=TaskStatus.COMPLETED), lazy=False)
    database.futures[0].set_result(False)
    await database.settle()
    assert notes.committed == [] and notes.stale == 1


async def test_the_last_write_is_known_again_after_it_gave_the_task_up() -> None:
    mine = task()
    mine.lease_holder = "srv_a"
    database = FarDatabase(task(last_seq=5, status=TaskStatus.COMPLETED))
    notes = Notes(database, mine)
    notes.ledger.submit(write(4), lazy=True)
    notes.ledger.submit(write(5, status=TaskStatus.COMPLETED), lazy=False)
    for future in database.futures:
        future.set_exception(Unavailable("connection lost"))
    await database.settle()
    assert notes.committed == [4, 5] and notes.stale == 0
