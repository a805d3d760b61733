from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apphost.child import Children, children


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Children]:
    """Makes apps and real children; all of them end with the test."""
    yield from children(tmp_path)
