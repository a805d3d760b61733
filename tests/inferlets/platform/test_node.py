"""The node dies, or the server does: tasks end clearly or run again, and the next ones run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import StartServer
from tests.e2e.support import send
from tests.inferlets.platform.conftest import SETTINGS, Package, kill_node, with_model
from tests.support.server import COMPLETED, ENTRY, FAILED, Server
from tests.support.waiting import wait_until


def until_heard(server: Server, task_id: str, word: str) -> None:
    wait_until(lambda: f"heard {word}" in server.task(task_id)["sent"], f"{word!r} to be heard", 30, every=0.05)


def tell(server: Server, task_id: str, *words: str) -> None:
    for word in words:
        Server.data(server.api.post(f"/tasks/{task_id}/inbox", json={"content": word}))


def test_a_killed_node_costs_an_attempt_and_is_started_again(server: Server) -> None:
    task = send(server, "actor", {"do": "echo"})
    tell(server, task["id"], "a")
    until_heard(server, task["id"], "a")
    kill_node(server)
    wait_until(lambda: server.task(task["id"])["attempt"] == 2, "a second attempt", 60)
    tell(server, task["id"], "stop")
    ended = server.wait(task["id"], 60)
    assert (ended["status"], ended["sent"]) == (COMPLETED, ["heard a"])
    assert any("killed by SIGKILL" in line for line in ended["logs"])


def test_a_task_that_loses_its_node_twice_has_failed(server: Server) -> None:
    task = send(server, "actor", {"do": "echo"})
    for attempt in (1, 2):
        _until_running(server, task["id"], attempt)
        kill_node(server)
    ended = server.wait(task["id"], 60)
    assert (ended["status"], ended["error_code"]) == (FAILED, "instance_lost")
    assert "killed by SIGKILL" in ended["error"]


def _until_running(server: Server, task_id: str, attempt: int) -> None:
    def running() -> bool:
        task = server.task(task_id)
        return (task["attempt"], task["status"]) == (attempt, 7)

    wait_until(running, f"attempt {attempt}", 60, every=0.05)


def test_a_server_that_restarts_goes_on_with_its_programs(
    start_server: StartServer, tmp_path: Path, package: Package
) -> None:
    server = start_server(home=with_model(tmp_path / "home"), env={**SETTINGS, "BAKEHOUSE_DRAIN_GRACE": "1s"})
    server.deploy(package())
    task = send(server, "actor", {"do": "echo"})
    tell(server, task["id"], "a")
    until_heard(server, task["id"], "a")
    server.restart()
    tell(server, task["id"], "stop")
    assert server.wait(task["id"], 60)["sent"] == ["heard a"]
    stopping = send(server, "actor", {"do": "echo"})
    server.stop()
    server.start()
    tell(server, stopping["id"], "stop")
    assert server.wait(stopping["id"], 60)["output"] == {"result": "stopped"}


def test_a_model_that_cannot_be_loaded_is_said_and_tasks_fail(
    start_server: StartServer, tmp_path: Path, package: Package
) -> None:
    server = start_server(home=with_model(tmp_path / "home"), env=SETTINGS)
    server.deploy(package())
    server.stop()
    (server.home / "models" / "tiny.toml").write_text('source = "/nowhere/at/all"\n')
    server.start()
    task = server.run("actor", {"do": "nothing"}, wait=60)
    assert (task["status"], task["error_code"]) == (FAILED, "node_down")
    assert "/nowhere/at/all" in task["error"]
    assert "node_refused" in server.log_tail()


def models_of(server: Server) -> list[str]:
    """As a program sees them."""
    ended = server.wait(send(server, "actor", {"do": "who"})["id"], 60)
    return list(ended["output"]["models"])


def test_a_model_that_is_recorded_meanwhile_is_served_and_one_that_is_none_harms_nobody(server: Server) -> None:
    assert "loads it now" in _models(server, "add", "later", "dummy")
    (server.home / "models" / "broken.toml").write_text('source = "/nowhere/at/all"\n')
    try:
        wait_until(lambda: models_of(server) == ["tiny", "later"], "the new model", 30)
        wait_until(lambda: "the model broken cannot be served" in server.log_path.read_text(), "the other one", 30)
        kill_node(server)
        assert models_of(server) == ["tiny", "later"]
    finally:
        (server.home / "models" / "broken.toml").unlink()
        assert "when it is started again" in _models(server, "remove", "later")


def _models(server: Server, *words: str) -> str:
    """What the command says beside its result."""
    command = [sys.executable, "-c", ENTRY, "models", *words, "--home", str(server.home)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr
