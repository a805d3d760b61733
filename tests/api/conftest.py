"""The services over a real store, and what the server logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.platform import Platform, platform


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Platform]:
    async with platform(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Log lines as they are made, not printed."""
    with structlog.testing.capture_logs() as lines:
        yield lines
