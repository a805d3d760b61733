"""What is asked again and again must not walk through all tasks there ever were: read from SQLite's own plans."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bakehouse.core.clock import SystemClock
from bakehouse.store.base import ListQuery
from bakehouse.store.connection import Connection
from bakehouse.store.sql import SqlStore
from bakehouse.store.sqlite import SqliteDriver
from tests.store.samples import NOW, queued


class Listening(SqliteDriver):
    """Writes down every statement that is run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.heard: list[str] = []

    def connect(self, *, writer: bool) -> Connection:
        connection = super().connect(writer=writer)
        connection.raw.set_trace_callback(self.heard.append)
        return connection


@pytest.fixture
async def driver(tmp_path: Path) -> Listening:
    return Listening(tmp_path / "a.db")


@pytest.fixture
async def store(driver: Listening) -> AsyncIterator[SqlStore]:
    store = SqlStore(driver, SystemClock())
    await store.open()
    yield store
    await store.close()


def steps(driver: Listening) -> list[str]:
    """The steps of the plans of what was heard that touch tasks or deliveries."""
    found = []
    with sqlite3.connect(driver.path) as connection:
        for statement in driver.heard:
            if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                found += [row[3] for row in plan if "tasks" in row[3] or "webhook" in row[3]]
    connection.close()
    return found


POLLED: dict[str, Callable[[SqlStore], Awaitable[Any]]] = {
    "queued": lambda store: store.queued(NOW, 10),
    "next_due": lambda store: store.next_due(NOW),
    "count_queued": lambda store: store.count_queued(),
    "count_queued_of_owner": lambda store: store.count_queued("owner_a"),
    "orphans": lambda store: store.orphans(10),
    "orphans_sole": lambda store: store.orphans(10, sole="holder_a"),
    "cancel_requests": lambda store: store.cancel_requests("holder_a"),
    "purge_tasks": lambda store: store.purge_tasks(NOW, 10),
    "list_tasks": lambda store: store.list_tasks("owner_a", ListQuery(limit=5)),
    "due_webhooks": lambda store: store.due_webhooks(NOW, 5),
    "expired_sessions": lambda store: store.expired_sessions(NOW),
}


@pytest.mark.parametrize("name", POLLED)
async def test_a_polled_question_uses_its_index(store: SqlStore, driver: Listening, name: str) -> None:
    await queued(store)
    driver.heard.clear()
    await POLLED[name](store)
    plans = steps(driver)
    assert plans
    for step in plans:
        walks = step.startswith("SCAN") and not any(i in step for i in ("tasks_waiting", "tasks_held", "tasks_ended"))
        assert not walks, step
        assert name == "list_tasks" or "tasks_by_owner" not in step, step
