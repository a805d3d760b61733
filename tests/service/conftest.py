"""The services over a real store. SQLite, except where a test asks for both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, platform


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str | None:
    """The database's URL; None is SQLite in the test's own directory. ``parametrize`` it with postgres for that."""
    if getattr(request, "param", "sqlite") == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return None


@pytest.fixture
async def here(tmp_path: Path, database: str | None) -> AsyncIterator[Platform]:
    async with platform(tmp_path, database) as made:
        yield made
