"""The inbox of a task: durable, in order, and there again for a second attempt."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.server import COMPLETED, Server
from tests.support.waiting import wait_until

APP = Path(__file__).parent / "apps" / "listener"


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_MAX_INSTANCES": "1"})
    server.deploy(APP)
    return server


def start(server: Server) -> str:
    task: dict[str, Any] = Server.data(server.api.post("/apps/run", json={"app": "listener", "input": {}}))
    return str(task["id"])


def send(server: Server, task_id: str, content: str) -> int:
    answer = Server.data(server.api.post(f"/tasks/{task_id}/inbox", json={"content": content}))
    return int(answer["seq"])


def test_messages_arrive_in_order_also_those_from_before_the_start(server: Server) -> None:
    first, second = start(server), start(server)  # one instance: the second waits
    assert [send(server, second, word) for word in ("early", "stop")] == [1, 2]
    for word in ("a", "b", "stop"):
        send(server, first, word)
    assert server.wait(first, 30)["output"]["heard"] == ["a", "b", "stop"]
    assert server.wait(second, 30)["output"]["heard"] == ["early", "stop"]


def test_a_second_attempt_gets_the_inbox_from_its_beginning(server: Server) -> None:
    task_id = start(server)
    send(server, task_id, "kept")
    wait_until(lambda: "heard kept" in server.task(task_id)["logs"], "the message to be heard", 30)
    _kill_instances(server)
    wait_until(lambda: server.task(task_id)["attempt"] == 2, "a second attempt", 30)
    send(server, task_id, "stop")
    task = server.wait(task_id, 30)
    assert (task["status"], task["output"]) == (COMPLETED, {"heard": ["kept", "stop"], "attempt": 2})


def _kill_instances(server: Server) -> None:
    home = str(server.home).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if home in command and b"apphost/__main__.py" in command:
                os.kill(int(entry.name), signal.SIGKILL)


def test_a_finished_task_takes_no_more(server: Server) -> None:
    task_id = start(server)
    send(server, task_id, "stop")
    server.wait(task_id, 30)
    answer = server.api.post(f"/tasks/{task_id}/inbox", json={"content": "late"})
    assert answer.status_code == 409
