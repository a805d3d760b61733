"""A node and the connection to it, without a server around them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bakehouse.core.app import Manifest, Version
from bakehouse.core.executor import Call, ExecutorEvent, Lost, Moved
from bakehouse.core.task import TaskStatus
from bakehouse.engine.spec import DUMMY, ModelSpec
from bakehouse.engine.supervise import Policy
from bakehouse.inferlets.remote import HostLost
from bakehouse.llm import inferlets as executing
from bakehouse.llm.base import Hooks
from bakehouse.llm.inferlets import InferletExecutor
from bakehouse.wiring.node import NodeConfig
from bakehouse.wiring.nodes import Node
from tests.dispatch.support import make_task
from tests.support.inferlets import keep_builds


def config(folder: Path) -> NodeConfig:
    home = keep_builds(folder) / "inferlets"
    return NodeConfig(folder=str(home), programs=str(home / "programs"))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    found = Node([ModelSpec(name="tiny", source=DUMMY)], config(tmp_path), Policy(first_pause=0.05, drain=0.1))
    found.start()
    yield found
    await found.close()


async def prepared(version: Version) -> None:
    raise AssertionError("the program is installed")


async def name_of(owner: str) -> str:
    return owner


async def unused(*_: object) -> Any:
    raise AssertionError("no files are sent")


HOOKS = Hooks(prepared, name_of, unused, unused)
VERSION = Version("ver_1", "app_1", "own_a", "v1", "", "ready", 0, "file_1", Manifest("actor"), "1.0.0")


async def until_up(node: Node) -> None:
    async with asyncio.timeout(60):
        await node.host()


async def test_it_says_when_it_is_up(node: Node) -> None:
    told: list[bool] = []
    node.on_change(lambda: told.append(node.up))
    assert not node.up
    await until_up(node)
    assert (node.up, node.down, told[-1]) == (True, "", True)
    assert [model.name for model in await node.engine.models()] == ["tiny"]


async def test_a_connection_that_breaks_is_made_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakehouse.engine.supervise._EXIT_PATIENCE", 0.5)
    await until_up(node)
    pid, before = node.pid, await node.host()
    before._channel.link.close("a fault")
    async with asyncio.timeout(30):
        await before.ended()
        up = asyncio.Event()
        node.on_change(lambda: up.set() if node.up else None)
        await up.wait()
    assert await node.host() is not before
    assert node.pid == pid


async def test_a_process_that_dies_is_followed_by_another(node: Node) -> None:
    await until_up(node)
    pid, before = node.pid, await node.host()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await before.ended()
    with pytest.raises(HostLost, match="SIGKILL"):
        await before.stats()
    await until_up(node)
    assert node.pid != pid


async def test_one_that_hangs_is_killed_and_followed_by_another(tmp_path: Path) -> None:
    policy = Policy(first_pause=0.05, drain=0.1)
    node = Node([ModelSpec(name="tiny", source=DUMMY)], config(tmp_path), policy, silence=0.9)
    node.start()
    try:
        await until_up(node)
        pid, before = node.pid, await node.host()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(30):
            with pytest.raises(HostLost, match=r"SIGKILL.*\n.*did not answer for 0.9 s"):
                await before.stats()
        await until_up(node)
        assert node.pid != pid
        assert (await (await node.host()).stats())["instances"] == 0
    finally:
        await node.close()


async def test_one_that_hangs_before_it_is_connected_to_is_killed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakehouse.engine.supervise._EXIT_PATIENCE", 0.5)
    policy = Policy(first_pause=0.05, drain=0.1)
    node = Node([ModelSpec(name="tiny", source=DUMMY)], config(tmp_path), policy, silence=0.9)
    node.start()
    try:
        await until_up(node)
        pid, before = node.pid, await node.host()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        before._channel.link.close("a fault")
        async with asyncio.timeout(30):
            await before.ended()
        await until_up(node)
        assert node.pid != pid
    finally:
        await node.close()


async def test_a_server_stops_though_its_node_hangs(node: Node, actor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "HAND_BACK_SECONDS", 0.2)
    await until_up(node)
    await (await node.host()).install("own_a", '[package]\nname = "actor"\nversion = "1.0.0"\n', actor)
    executor, runs = InferletExecutor(node, HOOKS), asyncio.Event()
    events: list[ExecutorEvent] = []
    calls = [Call(make_task(input='{"do": "echo"}'), 1, VERSION, {}) for _ in range(2)]

    def note(event: ExecutorEvent) -> None:
        events.append(event)
        runs.set()

    executor.start(calls[0], note)
    await asyncio.wait_for(runs.wait(), 60)
    assert node.pid is not None
    os.kill(node.pid, signal.SIGSTOP)
    executor.start(calls[1], events.append)  # this one is being launched
    async with asyncio.timeout(10):
        await executor.shut_down(0.0)
    assert events == [Moved(TaskStatus.RUNNING), *[Lost("the server is stopping", code="server_stopping")] * 2]
    os.kill(node.pid, signal.SIGCONT)


async def test_one_that_died_too_often_gets_another_chance(tmp_path: Path) -> None:
    policy = Policy(first_pause=0.05, drain=0.1, crashes=1)
    node = Node([ModelSpec(name="tiny", source=DUMMY)], config(tmp_path), policy, rest=0.2)
    downs: list[str] = []
    again = asyncio.Event()
    node.on_change(lambda: downs.append(node.down))
    node.start()
    try:
        await until_up(node)
        assert node.pid is not None
        node.on_change(lambda: again.set() if node.up and any(downs) else None)
        os.kill(node.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await again.wait()
    finally:
        await node.close()
    assert any("SIGKILL" in down for down in downs)


async def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    node = Node([ModelSpec(name="twice", source=DUMMY), ModelSpec(name="twice", source=DUMMY)], config(tmp_path))
    changed = asyncio.Event()
    node.on_change(lambda: changed.set() if node.down else None)
    node.start()
    async with asyncio.timeout(60):
        await changed.wait()
    assert "two models are named 'twice'" in node.down
    with pytest.raises(HostLost, match="twice"):
        await node.host()
    await node.close()
