"""Which server a command speaks to, and that a key goes only where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bakehouse.cli.endpoint import find_endpoint
from bakehouse.cli.failures import Exit, Failure


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("INFERENCE_BASE_URL", "INFERENCE_API_KEY", "BAKEHOUSE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "endpoint.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "key": "local-key", "pid": 1}))
    return tmp_path


def test_the_running_server_is_the_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEHOUSE_HOME", str(home))
    found = find_endpoint()
    assert (found.url, found.key) == ("http://127.0.0.1:9", "local-key")
    assert "local-key" not in repr(found)


def test_options_win_over_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_BASE_URL", "http://env:1/")
    monkeypatch.setenv("INFERENCE_API_KEY", "env-key")
    assert find_endpoint(home=home).url == "http://env:1"
    assert find_endpoint(home=home).key == "env-key"
    found = find_endpoint("http://flag:2/", "flag-key", home)
    assert (found.url, found.key) == ("http://flag:2", "flag-key")


def test_the_local_key_never_goes_to_another_server(home: Path) -> None:
    with pytest.raises(Failure, match="no API key for http://other:1") as caught:
        find_endpoint("http://other:1", home=home)
    assert caught.value.status == Exit.UNREACHABLE
    assert find_endpoint("http://127.0.0.1:9/", home=home).key == "local-key"


def test_no_server_is_known(tmp_path: Path, home: Path) -> None:
    with pytest.raises(Failure, match="no server is known") as caught:
        find_endpoint(home=tmp_path / "empty")
    assert "bakehouse serve" in caught.value.hint


def test_a_broken_endpoint_file_is_told(home: Path) -> None:
    (home / "endpoint.json").write_text("{")
    with pytest.raises(Failure, match=r"endpoint\.json"):
        find_endpoint(home=home)
