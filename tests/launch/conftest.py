"""The bench of this room: an executor whose end is checked for leaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.launch.support import Bench, bench


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started executor with small graces; after the test nothing of it may be left."""
    async with bench(tmp_path) as made:
        yield made
