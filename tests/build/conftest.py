"""A builder over real uv and real children, with tiny wheels of our own so that no network is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.support import Bench, make_wheel


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Wheels with our names that hold one module each and need nothing."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "bakehouse_infsh", "infsh")
    make_wheel(folder, "bakehouse_inferencesh", "inferencesh")
    return folder


@pytest.fixture
def bench(tmp_path: Path, wheels: Path) -> Bench:
    return Bench(tmp_path, wheels)
