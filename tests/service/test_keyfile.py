"""The server's secret file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bakehouse.service.keyfile import ServerSecret


def test_it_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    first = ServerSecret.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ServerSecret.load(path).key("a") == first.key("a") != first.key("b")
    assert [p.name for p in tmp_path.iterdir()] == ["secret.key"]
    assert first.key("a").hex() not in repr(first)


def test_servers_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: ServerSecret.load(tmp_path / "secret.key").key("a"), range(64)))
    assert len(keys) == 1


def test_a_broken_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        ServerSecret.load(tmp_path / "secret.key")
