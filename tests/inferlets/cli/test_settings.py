"""``pie config``, ``model``, ``auth``, ``doctor``: what works on a data directory."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bakehouse.settings import Settings, load_settings
from tests.inferlets.cli.conftest import Pie


@pytest.fixture
def file(pie: Pie) -> Path:
    """The settings file after ``config init``."""
    assert pie.here("config", "init").status == 0
    return pie.home / "bakehouse.toml"


def test_a_new_settings_file_changes_nothing_and_names_everything(pie: Pie, file: Path) -> None:
    text = file.read_text()
    assert tomllib.loads(text) == {}
    assert all(f"\n# {name} =" in text for name in Settings.model_fields)
    assert load_settings({"home": pie.home}, config=file) == load_settings({"home": pie.home})
    again = pie.here("config", "init")
    assert (again.status, file.read_text()) == (2, text)


def test_a_comment_with_a_default_becomes_a_setting(pie: Pie, file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert pie.here("config", "set", "port", "9000").status == 0
    assert pie.here("config", "set", "max-body", "1MiB").status == 0
    assert pie.here("config", "set", "allow_origins", '["a", "b"]').status == 0
    assert pie.here("config", "set", "port", "9001").status == 0
    assert len(file.read_text().splitlines()) == lines
    assert tomllib.loads(file.read_text()) == {"port": 9001, "max_body": "1MiB", "allow_origins": ["a", "b"]}
    assert pie.here("config", "show", "port", "--json").json == 9001
    assert pie.here("config", "show", "--json").json["max_body"] == 1 << 20
    assert "port = 9001\n" in pie.here("config", "show").out


def test_without_a_file_set_makes_one(pie: Pie) -> None:
    assert pie.here("config", "set", "log_level", "debug").status == 0
    assert (pie.home / "bakehouse.toml").read_text() == 'log_level = "debug"\n'


def test_what_a_server_would_refuse_is_not_written(pie: Pie, file: Path) -> None:
    before = file.read_text()
    for name, value, text in (
        ("speed", "1", "no setting 'speed'"),
        ("port", "many", "port"),
        ("host", "0.0.0.0", "public"),
    ):
        ended = pie.here("config", "set", name, value)
        assert ended.status == 2
        assert text in ended.err
        assert ".new" not in ended.err
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".new"] == []


def test_a_password_is_not_shown(pie: Pie, file: Path) -> None:
    pie.here("config", "set", "database_url", "postgresql://me:hunter2@host/db")
    assert "hunter2" not in pie.here("config", "show").out


def test_models_are_those_of_the_server(pie: Pie) -> None:
    assert pie.here("model", "add", "small", "dummy").status == 0
    assert [row["name"] for row in pie.here("model", "list", "--json").json] == ["small"]
    assert "nothing to download" in pie.here("model", "download", "small").err
    assert pie.here("model", "remove", "small").status == 0
    assert pie.here("model", "list", "--json").json == []


def test_users_have_keys(pie: Pie) -> None:
    made = pie.here("auth", "add", "ada", "--json").json
    assert made["scopes"] == ["run", "deploy"]
    assert made["key"].startswith("inf_")
    pie.here("auth", "add", "ada")
    pie.here("auth", "add", "bob")
    assert pie.here("auth", "list", "--json").json == [{"user": "ada", "keys": 2}, {"user": "bob", "keys": 1}]
    assert pie.here("auth", "remove", "ada", "--json").json == {"user": "ada", "revoked": 2}
    assert pie.here("auth", "list", "--json").json == [{"user": "bob", "keys": 1}]
    assert "no user 'eve'" in pie.here("auth", "remove", "eve").err
    assert pie.here("auth", "add", "not a name").status == 2


def test_doctor_says_what_there_is(pie: Pie) -> None:
    found = {row["check"]: row for row in pie.here("doctor", "--json").json}
    assert found["wasmtime"]["state"] == "ok"
    assert found["models"]["text"].startswith("none recorded")
    assert "not enforced" in found["sandbox"]["text"]


def test_tables_of_the_file_stay_and_are_not_shown(pie: Pie, file: Path) -> None:
    with file.open("a") as text:
        text.write('\n[mcp_servers.files]\nurl = "http://127.0.0.1:1"\nheaders = { Authorization = "hunter2" }\n')
    assert pie.here("config", "set", "port", "9002").status == 0
    assert pie.here("config", "set", "mcp_servers.tools.command", '["tool", "--serve"]').status == 0
    found = tomllib.loads(file.read_text())
    assert found["port"] == 9002
    assert found["mcp_servers"] == {
        "files": {"url": "http://127.0.0.1:1", "headers": {"Authorization": "hunter2"}},
        "tools": {"command": ["tool", "--serve"]},
    }
    shown = pie.here("config", "show", "--json")
    assert shown.json["mcp_servers"] == ["files", "tools"]
    assert "hunter2" not in shown.out
