"""A node and the connection to it, without a server around them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bakehouse.engine.spec import DUMMY, ModelSpec
from bakehouse.engine.supervise import Policy
from bakehouse.inferlets.remote import HostLost
from bakehouse.wiring.node import NodeConfig
from bakehouse.wiring.nodes import Node
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


async def test_a_connection_that_breaks_is_made_again(node: Node) -> None:
    await until_up(node)
    pid, before = node.pid, await node.host()
    before._link.close("a fault")
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
