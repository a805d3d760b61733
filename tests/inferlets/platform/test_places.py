"""How many run: what is over a bound waits in the queue, and what the node refuses goes back there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from inferlet import client

from tests.conftest import StartServer
from tests.e2e.support import send, statuses
from tests.inferlets.platform.conftest import SETTINGS, Package, with_model
from tests.support.server import COMPLETED, FAILED, Server
from tests.support.waiting import wait_until

QUEUED, RUNNING = 2, 7
ECHO = {"do": "echo"}


@pytest.fixture(scope="module")
def server(module_servers: StartServer, tmp_path_factory: pytest.TempPathFactory, package: Package) -> Server:
    home: Path = with_model(tmp_path_factory.mktemp("server") / "home")
    started = module_servers(home=home, env={**SETTINGS, "BAKEHOUSE_INFERLET_INSTANCES_PER_OWNER": "2"})
    started.deploy(package())
    return started


def until(server: Server, task_id: str, status: int) -> None:
    wait_until(lambda: server.task(task_id)["status"] == status, f"{task_id} to be {status}", 30, every=0.02)


def stop(server: Server, task_id: str) -> None:
    Server.data(server.api.post(f"/tasks/{task_id}/inbox", json={"content": "stop"}))


def test_a_third_one_waits_for_its_place(server: Server) -> None:
    first, second = (send(server, "actor", ECHO)["id"] for _ in range(2))
    for task_id in (first, second):
        until(server, task_id, RUNNING)
    third = send(server, "actor", {"do": "nothing"})["id"]
    assert server.task(third)["status"] == QUEUED
    stop(server, first)
    assert server.wait(third, 30)["status"] == COMPLETED
    stop(server, second)
    assert server.wait(second, 30)["status"] == COMPLETED


def test_a_child_does_not_wait_for_a_place_it_is_refused(server: Server) -> None:
    waiting = send(server, "actor", ECHO)["id"]
    until(server, waiting, RUNNING)
    parent = server.run("actor", {"do": "spawn", "program": "actor@1.0.0", "input": {"do": "nothing"}})
    assert parent["status"] == FAILED
    assert "instances: an owner has at most 2" in parent["error"]
    stop(server, waiting)
    server.wait(waiting, 30)


async def test_what_the_node_refuses_waits_until_others_have_left(server: Server) -> None:
    async with client.connect(server.base_url.replace("http", "ws", 1), token=server.key) as talk:
        others = [await talk.launch("actor@1.0.0", [json.dumps(ECHO)]) for _ in range(2)]
        task_id = send(server, "actor", {"do": "nothing"})["id"]
        wait_until(lambda: statuses(server, task_id).count("queued") > 1, "it to be sent back", 30, every=0.05)
        for process in others:
            await process.terminate()
        ended = server.wait(task_id, 30)
    assert (ended["status"], ended["attempt"] > 1) == (COMPLETED, True)


async def test_what_waits_when_its_inferlet_is_deleted_says_so(server: Server, package: Package) -> None:
    app = server.deploy(package("leaving"))
    running = [send(server, "actor", ECHO)["id"] for _ in range(2)]
    for task_id in running:
        until(server, task_id, RUNNING)
    waiting = send(server, "leaving", {"do": "nothing"})["id"]
    server.data(server.api.delete(f"/apps/{app['id']}"))
    async with client.connect(server.base_url, token=server.key) as talk:
        for _ in range(600):
            if not any(row["program"].startswith("leaving") for row in await talk.programs()):
                break
            await asyncio.sleep(0.05)
    for task_id in running:
        stop(server, task_id)
    ended = server.wait(waiting, 30)
    assert (ended["status"], ended["error"]) == (FAILED, "leaving@1.0.0 was deleted before this task began")
