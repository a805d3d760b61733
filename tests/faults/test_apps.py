"""Apps that misbehave: one clear error for that task, and the server and other tasks go on; nothing stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.server import CANCELLED, COMPLETED, FAILED, DeployFailed, Server
from tests.support.waiting import wait_until

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_CANCEL_GRACE": "1", "BAKEHOUSE_MAX_INSTANCES": "2"})
    server.deploy(APPS / "faulty")
    return server


def run(server: Server, function: str, wait: float = 60.0, **body: Any) -> dict[str, Any]:
    return server.run(f"faulty:{function}", {"n": 1}, wait=wait, **body)


@pytest.fixture(autouse=True)
def others_go_on(server: Server) -> Iterator[None]:
    """After each fault the next call works, and no process of an instance is left beside the live ones."""
    yield
    task = run(server, "fine")
    assert (task["status"], task["output"]["value"]) == (COMPLETED, 1), task["error"]
    assert server.api.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("function", "words", "code"),
    [
        ("raises", "this went wrong on purpose", "app_error"),
        ("exits", "exit", "exit"),
        ("not_json", "JSON", "invalid_output"),
        ("not_a_number", "nan", "invalid_output"),
        ("missing_file", "/nowhere/at-all.png", "output_file"),
    ],
)
def test_a_fault_of_the_code_fails_the_task_at_once(server: Server, function: str, words: str, code: str) -> None:
    task = run(server, function)
    assert task["status"] == FAILED and task["attempt"] == 1
    assert words.lower() in task["error"].lower()
    assert task["error_code"] == code
    assert "\n" not in task["error"]


def test_a_traceback_is_in_the_logs_and_the_error_is_short(server: Server) -> None:
    task = run(server, "raises")
    assert any("Traceback" in line for line in task["logs"])
    assert any("inference.py" in line for line in task["logs"])


@pytest.mark.parametrize(
    ("function", "words"), [("os_exits", "7"), ("segfaults", "SIGSEGV"), ("kills_itself", "SIGKILL")]
)
def test_a_lost_instance_is_retried_up_to_the_limit(server: Server, function: str, words: str) -> None:
    task = run(server, function)
    assert task["status"] == FAILED
    assert words in task["error"]
    assert task["attempt"] == 2  # the first and one retry


def test_too_much_memory_ends_with_the_limit_named(server: Server) -> None:
    task = run(server, "eats_memory")
    assert task["status"] == FAILED and task["error_code"] == "out_of_memory"
    assert "MiB" in task["error"] and task["attempt"] == 1


def test_garbage_on_the_message_socket_ends_the_instance(server: Server) -> None:
    task = run(server, "garbage_on_the_socket")
    assert task["status"] == FAILED and task["error_code"] == "protocol_error"


def test_garbage_on_the_pipes_is_just_log(server: Server) -> None:
    task = run(server, "garbage_on_the_pipes")
    assert task["status"] == COMPLETED and task["logs"]


def test_100_mb_of_prints_keep_head_tail_and_a_counted_gap(server: Server) -> None:
    task = run(server, "prints_100_mb", wait=120)
    assert task["status"] == COMPLETED
    gap = [line for line in task["logs"] if line.startswith("... ") and "left out" in line]
    assert len(gap) == 1
    assert 10 * 2**20 < sum(len(line) for line in task["logs"]) < 18 * 2**20


def test_children_that_an_app_leaves_end_with_its_instance(server: Server) -> None:
    marker = 987_001
    assert server.run("faulty:leaves_children", {"n": marker})["status"] == COMPLETED
    marker += 1
    assert server.run("faulty:leaves_children_and_dies", {"n": marker})["status"] == FAILED
    wait_until(lambda: not _sleepers(marker), "the children of the dead instance to end", 20)


def _sleepers(marker: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words[:2] == [b"sleep", str(marker).encode()]:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("function", ["never_returns", "never_listens"])
def test_a_call_that_never_returns_can_be_cancelled(server: Server, function: str) -> None:
    task = Server.data(server.api.post("/apps/run", json={"app": f"faulty:{function}", "input": {}}))
    wait_until(lambda: server.task(task["id"])["logs"], "the call to run", 30)
    assert server.api.post(f"/tasks/{task['id']}/cancel").status_code == 200
    ended = server.wait(task["id"], 30)
    assert ended["status"] == CANCELLED
    again = Server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    assert (again["status"], again["seq"]) == (CANCELLED, ended["seq"])


def test_a_deadline_stops_a_call(server: Server) -> None:
    task = run(server, "never_returns", timeout=0.5)
    assert task["status"] == FAILED and task["error_code"] == "deadline_exceeded"
    assert "0.5" in task["error"]


def test_an_app_that_does_not_import_is_refused_at_deploy(server: Server) -> None:
    with pytest.raises(DeployFailed, match="a_module_that_is_not_there"):
        server.deploy(APPS / "noimport")
    answer = server.api.post("/apps/run", json={"app": "noimport", "input": {}})
    assert answer.status_code in (404, 409)


def test_a_setup_that_raises_fails_the_task_without_retry(server: Server) -> None:
    server.deploy(APPS / "badsetup")
    task = server.run("badsetup", {})
    assert task["status"] == FAILED and task["attempt"] == 1
    assert "the weights are missing" in task["error"]


def test_nothing_leaks(server: Server) -> None:
    """Descriptors, processes and instance directories are where they were after a round of faults."""

    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))

    def round_of_faults() -> None:
        for function in ("raises", "os_exits", "garbage_on_the_socket"):
            run(server, function)
        run(server, "fine")

    round_of_faults()
    before = descriptors()
    for _ in range(3):
        round_of_faults()
    wait_until(lambda: descriptors() <= before + 4, "descriptors to be given back", 10)
    instances = server.home / "instances"
    wait_until(lambda: len(list(instances.iterdir())) <= 3, "instance directories to be removed", 10)
