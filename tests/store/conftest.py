"""One suite for every database: ``store`` is open, empty, and checked for integrity after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bakehouse.store import open_store
from bakehouse.store.sql import SqlStore

OpenStore = Callable[[], Awaitable[SqlStore]]


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'bakehouse.db'}"


@pytest.fixture
async def open_another(store_url: str) -> AsyncIterator[OpenStore]:
    """Open a further store on the same database, as a second server would."""
    stores: list[SqlStore] = []

    async def make() -> SqlStore:
        store = open_store(store_url)
        assert isinstance(store, SqlStore)
        stores.append(store)
        await store.open()
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_another: OpenStore) -> AsyncIterator[SqlStore]:
    """An open store on an empty database."""
    store = await open_another()
    yield store
    assert await store.check_integrity() == []
