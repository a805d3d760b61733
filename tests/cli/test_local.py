"""The commands that work on this machine without a server: keys, db, doctor; and how wrong commands end."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text
from typer.main import get_command

from bakehouse.cli.app import app as bakehouse_app
from bakehouse.cli.bakery import app as bakery_app
from bakehouse.cli.pie.app import app as pie_app
from tests.cli.support import Command


def test_keys_are_made_shown_once_and_revoked(bakehouse: Command, tmp_path: Path) -> None:
    home = ("--home", tmp_path / "home")
    made = bakehouse("keys", "create", "ci", "--scope", "run", "--scope", "deploy", *home, "--json")
    assert made.status == 0
    assert made.json["scopes"] == ["run", "deploy"]
    assert made.json["key"].startswith("inf_")
    (listed,) = bakehouse("keys", "list", *home, "--json").json
    assert "key" not in listed
    assert (listed["id"], listed["name"], listed["revoked"]) == (made.json["id"], "ci", False)
    assert made.json["key"] not in bakehouse("keys", "list", *home).out
    assert bakehouse("keys", "revoke", listed["id"], *home).status == 0
    assert bakehouse("keys", "list", *home, "--json").json[0]["revoked"] is True


def test_a_key_may_expire(bakehouse: Command, tmp_path: Path) -> None:
    made = bakehouse("keys", "create", "--expires", "30d", "--home", tmp_path, "--json").json
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(lasts - timedelta(days=30)) < timedelta(minutes=1)
    for wrong in ("soon", "0", "-1d"):
        assert bakehouse("keys", "create", f"--expires={wrong}", "--home", tmp_path).status == 2


def test_only_the_key_is_on_stdout(bakehouse: Command, tmp_path: Path) -> None:
    ended = bakehouse("keys", "create", "--home", tmp_path)
    assert ended.out.strip().startswith("inf_")
    assert len(ended.out.split()) == 1
    assert "only time" in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "--scope", "root"], "run, deploy, admin"),
        (["create", "--owner", "models"], "models"),
        (["revoke", "key_nope"], "nobody"),
    ],
)
def test_wrong_keys_commands(bakehouse: Command, tmp_path: Path, arguments: list[str], told: str) -> None:
    ended = bakehouse("keys", *arguments, *(["--owner", "nobody"] if "revoke" in arguments else []), "--home", tmp_path)
    assert ended.status == 2
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_an_owner_without_keys_has_an_empty_list(bakehouse: Command, tmp_path: Path) -> None:
    assert bakehouse("keys", "list", "--owner", "nobody", "--home", tmp_path, "--json").json == []


def test_db_check_and_migrate(bakehouse: Command, tmp_path: Path) -> None:
    assert bakehouse("db", "migrate", "--home", tmp_path, "--json").json == {"migrated": True}
    ended = bakehouse("db", "check", "--home", tmp_path, "--json")
    assert (ended.status, ended.json) == (0, [])


def test_db_backup_is_a_whole_copy(bakehouse: Command, tmp_path: Path) -> None:
    assert bakehouse("db", "backup", "--home", tmp_path).status == 2  # nothing there yet
    bakehouse("keys", "create", "kept", "--home", tmp_path)
    path = Path(bakehouse("db", "backup", "--home", tmp_path, "--json").json["path"])
    assert path.parent == tmp_path
    assert path.stat().st_mode & 0o077 == 0
    copied = bakehouse("keys", "list", "--home", tmp_path / "other", "--database", f"sqlite:///{path}", "--json")
    assert [key["name"] for key in copied.json] == ["kept"]


def test_completion_for_shells(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "from bakehouse.cli import main; main()", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        timeout=60,
    )
    assert "_BAKEHOUSE_COMPLETE" in shown.stdout, shown.stderr


def test_an_unreachable_database_is_one_line(bakehouse: Command, tmp_path: Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/none"
    ended = bakehouse("db", "check", "--home", tmp_path, "--database", url)
    assert ended.status == 3
    assert "Traceback" not in ended.err
    assert "hunter2" not in ended.err


def test_doctor_finds_this_machine_well(bakehouse: Command, tmp_path: Path) -> None:
    ended = bakehouse("doctor", "--home", tmp_path / "home", "--port", 0, "--json")
    assert ended.status == 0, ended.out
    states = {finding["check"]: finding["state"] for finding in ended.json}
    assert {"python", "uv", "disk", "database", "port", "isolation", "memory", "gpu"} <= set(states)
    assert "error" not in states.values()
    assert not (tmp_path / "home").exists()  # looking makes nothing


def test_doctor_finds_a_taken_port(bakehouse: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = bakehouse("doctor", "--home", tmp_path, "--port", taken.getsockname()[1])
    assert ended.status == 1
    assert "--port" in ended.out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["serve", "--set", "prot=1"], 2, "did you mean port?"),
        (["serve", "--set", "port"], 2, "NAME=VALUE"),
        (["serve", "--port", "99999"], 2, "--port"),
        (["serve", "--host", "0.0.0.0"], 2, "--allow-public"),
        (["serve", "--config", "/no/such.toml"], 2, "no such file"),
        (["serve", "--frobnicate"], 2, "No such option"),
        (["bake"], 2, "No such command"),
        (["tasks", "list", "--url", "http://127.0.0.1:1", "--key", "x"], 3, "cannot reach"),
        (["tasks", "list", "--home", "/no/such/home"], 3, "bakehouse serve"),
        (["run", "a", "--input", "x", "--url", "http://127.0.0.1:1", "--key", "x"], 2, "key=value"),
        (["run", "a", "--url", "http://127.0.0.1:1", "--key", "x"], 3, "127.0.0.1:1"),
    ],
)
def test_how_wrong_commands_end(bakehouse: Command, arguments: list[str], status: int, told: str) -> None:
    ended = bakehouse(*arguments)
    assert ended.status == status
    assert told in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("app", [bakehouse_app, bakery_app, pie_app], ids=lambda app: app.info.name)
def test_every_word_of_help_is_shown(app: typer.Typer) -> None:
    """In help ``[word]`` is markup, unless it is escaped."""
    lost = [text for text in _helps(get_command(app)) if Text.from_markup(text).plain != text.replace("\\[", "[")]
    assert lost == []


def _helps(command: Any) -> Iterator[str]:
    yield command.help or ""
    yield from (parameter.help or "" for parameter in command.params)
    for below in getattr(command, "commands", {}).values():
        yield from _helps(below)


def test_version_and_help(bakehouse: Command) -> None:
    assert bakehouse("--version").out.startswith("bakehouse ")
    for command in ("serve", "run", "logs", "apps", "tasks", "cancel", "secrets", "keys", "db", "doctor"):
        assert bakehouse(command, "--help").status == 0
