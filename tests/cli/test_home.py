"""The lock of a data directory: one server, and others who only look."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from bakehouse.core.errors import Conflict
from bakehouse.wiring.home import Home


def test_one_server_runs_on_it(tmp_path: Path) -> None:
    first, second = Home(tmp_path), Home(tmp_path)
    assert not first.running()
    first.lock()
    assert second.running()
    with pytest.raises(Conflict, match="another server is running"):
        second.lock()
    first.unlock()
    assert not second.running()
    second.lock()
    second.unlock()


def test_who_only_looks_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.lock()
    home.unlock()
    looking = os.open(tmp_path / "lock", os.O_RDWR)  # as `running` does, slowly
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.01, os.close, (looking,)).start()
    home.lock()
    assert Home(tmp_path).running()
    home.unlock()
