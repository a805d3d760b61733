"""Random stories of tasks against a model: whatever the order, the store says what the model says."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import tempfile
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from bakehouse.core.task import LEGAL, Task, TaskWrite
from bakehouse.store import open_store
from tests.store.samples import NOW, WAITING, S, logged, make_task, move
from tests.support.postgres import Postgres

MOVES = [S.PREPARING, S.SETTING_UP, S.RUNNING, S.CANCELLING, S.UPLOADING, S.COMPLETED, S.FAILED, S.CANCELLED]


class StoreMachine(RuleBasedStateMachine):
    """Claims, writes with fresh and with stale views, cancels and requeues of a few tasks."""

    url = ""
    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = tempfile.TemporaryDirectory()
        self.store = open_store(self.url or f"sqlite:///{self.home.name}/a.db")
        self.do(self.store.open())
        self.tasks: dict[str, Task] = {}
        self.numbers = itertools.count()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def write(self, write: TaskWrite, lazy: bool = False) -> bool:
        async def wait() -> bool:
            return await self.store.write(write, lazy=lazy)

        return bool(self.do(wait()))

    @rule(target=known, key=st.sampled_from([None, "a", "b"]))
    def accept(self, key: str | None) -> Any:
        task = make_task(f"owner_{id(self)}", idempotency_key=key and f"{key}-{id(self)}")
        earlier = self.do(self.store.accept(task, WAITING))
        same = next((t for t in self.tasks.values() if key and t.idempotency_key == task.idempotency_key), None)
        assert earlier == same
        if earlier is not None:
            return multiple()
        self.tasks[task.id] = task
        return task.id

    @rule(task_id=known)
    def claim(self, task_id: str) -> None:
        task = self.tasks[task_id]
        got = self.do(self.store.claim([task_id], "holder_a"))
        assert bool(got) == (task.status == S.QUEUED and task.cancel_requested_at is None)
        if got:
            assert (got[0].attempt, got[0].last_seq) == (task.attempt + 1, task.last_seq + 1)
            self.tasks[task_id] = got[0]

    @rule(task_id=known, status=st.sampled_from(MOVES), lazy=st.booleans(), deliver=st.sampled_from([None, "http://x"]))
    def move(self, task_id: str, status: S, lazy: bool, deliver: str | None) -> None:
        task = self.tasks[task_id]
        applied = self.write(move(task, status, deliver=deliver if status.terminal else None), lazy)
        assert applied == (status in LEGAL[task.status])
        self.refresh(task_id, applied)

    @rule(task_id=known, count=st.integers(1, 3))
    def log(self, task_id: str, count: int) -> None:
        task = self.tasks[task_id]
        lines = tuple(logged(task.last_seq + 1 + i, task.status, task.attempt) for i in range(count))
        applied = self.write(TaskWrite(task_id, task.attempt, lines))
        assert applied == (not task.status.terminal)
        self.refresh(task_id, applied)

    @rule(task_id=known, attempt=st.integers(-1, 1), seq=st.integers(-2, 2))
    def stale(self, task_id: str, attempt: int, seq: int) -> None:
        if (attempt, seq) != (0, 0):
            task = self.tasks[task_id]
            view = dataclasses.replace(task, attempt=task.attempt + attempt, last_seq=task.last_seq + seq)
            assert not self.write(move(view, S.FAILED))

    @rule(task_id=known, lost=st.booleans())
    def requeue(self, task_id: str, lost: bool) -> None:
        task = self.tasks[task_id]
        applied = self.write(move(task, S.QUEUED, requeue=True, lost=lost))
        assert applied == (S.QUEUED in LEGAL[task.status])
        self.refresh(task_id, applied)
        if applied:
            after = self.tasks[task_id]
            assert (after.lease_holder, after.failures) == (None, task.failures + lost)

    @rule(task_id=known)
    def cancel(self, task_id: str) -> None:
        task = self.tasks[task_id]
        (result,) = self.do(self.store.request_cancel(task_id, None, NOW))
        assert result.cancelled_now == (task.lease_holder is None and not task.status.terminal)
        self.tasks[task_id] = result.task

    def refresh(self, task_id: str, applied: bool) -> None:
        before, after = self.tasks[task_id], self.do(self.store.get_task(task_id, None))
        assert applied or after == before
        self.tasks[task_id] = after

    @invariant()
    def the_store_agrees(self) -> None:
        for task in self.tasks.values():
            assert self.do(self.store.get_task(task.id, None)) == task

    def teardown(self) -> None:
        faults = self.do(self.store.check_integrity())
        self.do(self.store.close())
        self.loop.close()
        self.home.cleanup()
        assert faults == []


def machine(url: str, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        type("Machine", (StoreMachine,), {"url": url}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_stories_on_sqlite() -> None:
    machine("", 20, 25)


def test_random_stories_on_postgres(postgres: Postgres) -> None:
    url = postgres.create_database()
    machine(url, 12, 25)
    postgres.drop_database(url)


@pytest.mark.slow
def test_many_random_stories_on_sqlite() -> None:
    machine("", 300, 60)
