"""The dispatcher over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bakehouse.store.base import Store
from tests.dispatch.support import Server, make_server, opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as store:
        yield store


@pytest.fixture
async def server(store: Store) -> Server:
    made = make_server(store)
    await made.recovery.start_up()
    return made
