"""Two server processes on one PostgreSQL: either answers for any task, each task runs once, and one may die."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.postgres import Postgres
from tests.support.server import CANCELLED, COMPLETED, TERMINAL, Server
from tests.support.waiting import wait_until

APP = Path(__file__).parent.parent / "crash" / "app"


@pytest.fixture(scope="module")
def pair(
    postgres: Postgres, module_servers: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Server, Server]:
    """Servers ``a`` and ``b``: one database, one blob directory, one secret; a home and a port each."""
    url, shared = postgres.create_database(), tmp_path_factory.mktemp("shared")
    environment = {
        "BAKEHOUSE_LEASE_SECONDS": "2",
        "BAKEHOUSE_BLOB_DIR": str(shared / "blobs"),
        "BAKEHOUSE_SECRET_FILE": str(shared / "secret.key"),
    }
    a = module_servers(database=url, env=environment)
    b = module_servers(database=url, env={**environment, "BAKEHOUSE_PUBLIC_URL": a.base_url})
    b.key = a.key
    a.deploy(APP)
    return a, b


def start(server: Server, function: str, number: int = 1, count: int = 10) -> dict[str, Any]:
    request = {"app": f"crashtest:{function}", "input": {"n": number, "count": count}}
    task: dict[str, Any] = Server.data(server.api.post("/apps/run", json=request))
    return task


def read_stream(server: Server, task_id: str) -> list[dict[str, Any]]:
    with (
        server.client(timeout=30) as api,
        api.stream("GET", f"/tasks/{task_id}/stream", headers={"Accept": "application/x-ndjson"}) as response,
    ):
        lines = [json.loads(text) for text in response.iter_lines()]
    return [line for line in lines if line.get("type") != "heartbeat"]


def test_a_task_of_one_server_is_followed_through_the_other(pair: tuple[Server, Server]) -> None:
    a, b = pair
    task = start(a, "steps")
    lines = read_stream(b, task["id"])
    assert lines[-1]["status"] == COMPLETED
    durable = sorted({line["seq"] for line in lines})
    assert durable == list(range(1, durable[-1] + 1))
    logs = [text for line in lines for text in line["logs"]]
    assert logs == [f"step {step} of 1" for step in range(10)] == a.task(task["id"])["logs"]
    assert any(line["progress"] for line in lines), "live progress reaches the other server"


def test_a_cancel_through_the_other_server_arrives(pair: tuple[Server, Server]) -> None:
    a, b = pair
    task = start(a, "steps", count=400)
    wait_until(lambda: a.task(task["id"])["status"] == 7, "the task to run", 30)
    b.data(b.api.post(f"/tasks/{task['id']}/cancel"))
    assert a.wait(task["id"], 20)["status"] == CANCELLED
    assert b.task(task["id"])["status"] == CANCELLED


def test_both_claim_from_one_queue_and_nothing_runs_twice(pair: tuple[Server, Server]) -> None:
    tasks: list[dict[str, Any]] = []

    def send(server: Server, base: int) -> None:
        tasks.extend(start(server, "quick", base + number) for number in range(100))

    threads = [threading.Thread(target=send, args=(server, 1000 * i)) for i, server in enumerate(pair)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    a, b = pair
    ended = [b.wait(task["id"], 60) for task in tasks]
    assert Counter((task["status"], task["attempt"]) for task in ended) == {(COMPLETED, 1): 200}
    assert all(task["output"]["double"] == 2 * task["input"]["n"] for task in ended)
    assert a.task(tasks[-1]["id"])["output"] == b.task(tasks[-1]["id"])["output"]


def test_a_secret_and_a_key_of_one_hold_on_the_other(pair: tuple[Server, Server]) -> None:
    a, b = pair
    a.data(a.api.post("/secrets", json={"key": "TOKEN", "value": "s3cret"}))
    listed = b.data(b.api.post("/secrets/list"))
    assert [item["key"] for item in listed["items"]] == ["TOKEN"]


def test_the_tasks_of_a_dead_server_end_on_the_other(pair: tuple[Server, Server]) -> None:
    """Last: it kills ``a``."""
    a, b = pair
    tasks = [start(a, "steps", number) for number in range(6)]
    wait_until(lambda: a.task(tasks[0]["id"])["status"] == 7, "the first task to run", 30)
    a.kill()
    for task in tasks:
        ended = b.wait(task["id"], 60)
        assert ended["status"] == COMPLETED, ended["error"]
        assert ended["status"] in TERMINAL and ended["output"]["double"] == 2 * ended["input"]["n"]
    assert b.task(tasks[0]["id"])["attempt"] >= 2
