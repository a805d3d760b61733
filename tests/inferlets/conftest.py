"""Programs for the tests of inferlets: ``built``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from bakehouse.inferlets import bakery
from tests.support.inferlets import CACHE

__all__ = ["CACHE", "Build", "built"]

Build = Callable[[Path | str], Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a program, given as its folder, its file, or the text of its ``main.py``; the component's path."""

    def build(source: Path | str) -> Path:
        folder = tmp_path_factory.mktemp("program")
        if isinstance(source, str):
            name = hashlib.sha256(source.encode()).hexdigest()[:12]
            (folder / "main.py").write_text(source, encoding="utf-8")
            (folder / "Pie.toml").write_text(f'[package]\nname = "p{name}"\nversion = "0.1.0"\n', encoding="utf-8")
            source = folder
        return bakery.build(source, folder / "out.wasm", cache=CACHE / "bakery", compiled=CACHE / "compiled").path

    return build
