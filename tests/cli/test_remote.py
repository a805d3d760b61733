"""The commands that speak to a server, against a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Command
from tests.support.server import ENTRY, Server

STORY = Path(__file__).parent / "apps" / "story"


@pytest.fixture(scope="module")
def server(bakehouse_server: Server) -> Server:
    """A server that has the app ``story``, deployed by the command itself."""
    done = _spawn(bakehouse_server, "deploy", str(STORY), "--json")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert json.loads(out)["ref"] == "local/story"
    return bakehouse_server


@pytest.fixture(autouse=True)
def _home_of_the_server(server: Server, monkeypatch: pytest.MonkeyPatch, _no_variables: None) -> None:
    monkeypatch.setenv("BAKEHOUSE_HOME", str(server.home))


def _spawn(server: Server, *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEHOUSE_", "INFERENCE_"))}
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *arguments],
        env={**clean, "BAKEHOUSE_HOME": str(server.home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_shows_the_story_and_prints_the_output(bakehouse: Command) -> None:
    ended = bakehouse("run", "story", "--input", "words=3")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["told"] == 3
    for told in ("running", "word 1", "3/3  telling", "completed"):
        assert told in ended.err


def test_run_as_json_prints_the_task_and_nothing_else(bakehouse: Command) -> None:
    ended = bakehouse("run", "local/story@latest", "--json")
    task = ended.json
    assert (ended.status, task["status_text"], task["output"]["told"]) == (0, "completed", 2)
    assert ended.err == ""


def test_input_from_a_file_and_an_attachment(bakehouse: Command, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"words": 1}')
    (tmp_path / "note.bin").write_bytes(b"12345")
    arguments = ("--input", f"@{tmp_path / 'input.json'}", "--file", f"attachment={tmp_path / 'note.bin'}")
    ended = bakehouse("run", "story", *arguments, "--json")
    assert ended.json["output"]["size"] == 5


def test_output_files_are_saved_and_nothing_is_overwritten(bakehouse: Command, tmp_path: Path) -> None:
    for _ in range(2):
        ended = bakehouse("run", "story", "--save", tmp_path / "out")
        assert ended.status == 0
        assert "saved" in ended.err
    saved = sorted((tmp_path / "out").iterdir())
    assert len(saved) == 2
    assert {path.read_text() for path in saved} == {"the end"}


def test_a_failed_task_is_status_1_and_says_why(bakehouse: Command) -> None:
    ended = bakehouse("run", "story", "--input", "fail=true")
    assert ended.status == 1
    assert "the story ends badly" in ended.err
    assert "Traceback" in ended.err  # the app's own, as a part of its logs


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["run", "story", "--input", "words=many"], 2, "/input/words"),
        (["run", "nobody"], 2, "nobody"),
        (["run", "story", "--function", "nope"], 2, "nope"),
        (["logs", "task_nope"], 2, "task_nope"),
        (["tasks", "show", "task_nope"], 2, "task_nope"),
        (["apps", "show", "nobody"], 2, "nobody"),
        (["apps", "show", "Not An App"], 2, "namespace/name"),
        (["secrets", "delete", "NOPE"], 2, "NOPE"),
        (["tasks", "list", "--key", "inf_wrong"], 3, "key"),
        (["run", "story", "--key", "inf_wrong"], 3, "key"),
    ],
)
def test_what_the_server_refuses(bakehouse: Command, arguments: list[str], status: int, told: str) -> None:
    ended = bakehouse(*arguments)
    assert ended.status == status, ended.err
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_no_wait_logs_tasks_and_delete(bakehouse: Command) -> None:
    task = bakehouse("run", "story", "--no-wait").out.strip()
    assert task.startswith("task_")
    followed = bakehouse("logs", task, "--follow")
    assert followed.out.splitlines() == ["word 1", "word 2"]
    lines = bakehouse("logs", task, "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == ["word 1", "word 2"]
    assert bakehouse("tasks", "show", task).json["id"] == task
    assert task in bakehouse("tasks", "list").out
    assert bakehouse("tasks", "list", "--limit", 1, "--json").json[0]["id"] == task
    assert bakehouse("cancel", task).status == 0  # it is over, and stays as it is
    assert bakehouse("tasks", "show", task).json["status_text"] == "completed"
    assert bakehouse("tasks", "delete", task, "--files").status == 0
    assert bakehouse("tasks", "show", task).status == 2


def test_cancel_stops_a_running_task(bakehouse: Command, server: Server) -> None:
    task = bakehouse("run", "story", "--no-wait", "--input", "wait=true").out.strip()
    assert bakehouse("cancel", task).status == 0
    assert server.wait(task)["status_text"] == "cancelled"


def test_ctrl_c_cancels_the_task(server: Server) -> None:
    running = _spawn(server, "run", "story", "--input", "wait=true")
    assert running.stderr is not None
    for line in running.stderr:
        if "waiting" in line:
            break
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130, rest
    task = rest.split("cancelling ")[1].split()[0]
    assert server.wait(task)["status_text"] == "cancelled"


def test_a_session_goes_on(bakehouse: Command) -> None:
    first = bakehouse("run", "story", "--session", "new")
    session = first.err.split("session ")[1].split()[0]
    second = bakehouse("run", "story", "--session", session, "--json")
    assert (second.status, second.json["session_id"]) == (0, session)


def test_apps(bakehouse: Command) -> None:
    assert [app["ref"] for app in bakehouse("apps", "list", "--json").json] == ["local/story"]
    shown = bakehouse("apps", "show", "story")
    assert "words: integer" in shown.out
    (version,) = bakehouse("apps", "versions", "story", "--json").json
    assert version["short_id"] in bakehouse("apps", "versions", "local/story").out


@pytest.fixture
def secret(bakehouse: Command) -> Iterator[str]:
    yield "TOKEN_OF_TEST"
    bakehouse("secrets", "delete", "TOKEN_OF_TEST")


def test_secrets_are_never_shown(bakehouse: Command, secret: str) -> None:
    for value in ("first-topsecret", "second-topsecret"):
        assert bakehouse("secrets", "set", secret, "--value", value, "--description", "a token").status == 0
    listed = bakehouse("secrets", "list", "--json")
    assert [item["key"] for item in listed.json] == [secret]
    assert "topsecret" not in listed.out


def test_a_secret_is_read_from_stdin(bakehouse: Command, secret: str, server: Server) -> None:
    given, nothing = (_spawn(server, "secrets", "set", secret) for _ in range(2))
    given.communicate("from-stdin\n", timeout=60)
    nothing.communicate("", timeout=60)
    assert (given.returncode, nothing.returncode) == (0, 2)
    assert [item["key"] for item in bakehouse("secrets", "list", "--json").json] == [secret]


def test_a_missing_secret_says_what_to_do(bakehouse: Command, tmp_path: Path) -> None:
    (tmp_path / "inf.yml").write_text("name: keeper\nsecrets:\n  - key: VAULT_A\n  - key: VAULT_B\n")
    (tmp_path / "inference.py").write_text((STORY / "inference.py").read_text())
    assert bakehouse("deploy", tmp_path).status == 0
    ended = bakehouse("run", "keeper")
    assert ended.status == 2
    assert "VAULT_A" in ended.err
    assert "VAULT_B" in ended.err
    assert bakehouse("apps", "delete", "keeper").status == 0


def test_keys_work_beside_the_running_server(bakehouse: Command, server: Server) -> None:
    made: dict[str, Any] = bakehouse("keys", "create", "--json").json
    with server.client(made["key"]) as client:
        assert client.get("/me").status_code == 200
    assert bakehouse("keys", "revoke", made["id"]).status == 0


def test_a_deploy_that_fails(bakehouse: Command, tmp_path: Path) -> None:
    assert bakehouse("deploy", tmp_path).status == 2
    (tmp_path / "inf.yml").write_text("name: broken\n")
    (tmp_path / "inference.py").write_text("import nothing_of_the_kind\n")
    ended = bakehouse("deploy", tmp_path)
    assert ended.status == 1
    assert "nothing_of_the_kind" in ended.err


def test_a_second_server_is_refused(server: Server) -> None:
    second = _spawn(server, "serve", "--home", str(server.home), "--port", "0")
    _, told = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another server is running" in told
    assert "Traceback" not in told


def test_a_taken_port_is_refused(server: Server, tmp_path: Path) -> None:
    second = _spawn(server, "serve", "--home", str(tmp_path), "--port", str(server.port))
    _, told = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "--port" in told
    assert "Traceback" not in told


def test_a_reader_that_leaves_early_hears_no_complaint(server: Server) -> None:
    server.run("story", {"words": 20_000})
    task = server.data(server.api.post("/tasks/list", json={"limit": 1}))["items"][0]["id"]
    writing = _spawn(server, "logs", task)
    assert writing.stdout is not None
    assert writing.stdout.readline() == "word 1\n"
    writing.stdout.close()
    assert writing.stderr is not None
    with writing.stderr as told:
        assert told.read() == ""
    writing.wait(60)


def test_a_server_that_is_gone(bakehouse: Command, tmp_path: Path, server: Server) -> None:
    url = "http://127.0.0.1:1"
    for arguments in (("tasks", "list"), ("run", "story"), ("deploy", STORY)):
        ended = bakehouse(*arguments, "--url", url, "--key", server.key)
        assert ended.status == 3, arguments
        assert "Traceback" not in ended.err
