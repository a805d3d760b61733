"""What a deleted app leaves at the node goes, also where two are deleted at one time, or the node is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from bakehouse.core.app import INFERLET, Manifest, Version
from bakehouse.inferlets.remote import HostLost
from bakehouse.llm.base import Node
from bakehouse.wiring.removals import Removals


class World:
    """The apps of a server, and its node with their programs. The real ones meet in `test_deploy`."""

    def __init__(self, *names: str) -> None:
        self.apps, self.installed = set(names), set(names)
        self.up, self.broken = True, False
        self.wakes: list[Callable[[], None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def on_change(self, wake: Callable[[], None]) -> None:
        self.wakes.append(wake)

    async def host(self) -> World:
        if self.broken:
            raise HostLost("it died")
        return self

    async def programs(self, owner: str) -> list[dict[str, str]]:
        return [{"name": name, "version": "1.0.0", "digest": "d"} for name in self.installed]

    async def remove(self, owner: str, program: str) -> None:
        self.installed.remove(program.partition("@")[0])

    async def still_there(self, owner: str, name: str, label: str) -> bool:
        return name in self.apps

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def settled(self) -> None:
        await asyncio.gather(*self.tasks)


def version(name: str) -> Version:
    manifest = Manifest(name=name, kernel=INFERLET)
    return Version(f"ver_{name}", f"app_{name}", "own_me", "1", "x", "ready", 0, "file", manifest, "1.0.0", "d")


@pytest.fixture
def world() -> World:
    return World("a", "b")


@pytest.fixture
def removals(world: World, tmp_path: Path) -> Removals:
    return Removals(tmp_path / "removals", cast(Node, world), world.still_there, world.spawn)


async def test_what_is_looked_at_before_it_is_deleted_is_looked_at_again(world: World, removals: Removals) -> None:
    await removals.note([version("a")])
    await removals.note([version("b")])
    world.apps.remove("a")
    removals.begin()
    await world.settled()
    assert world.installed == {"b"}
    world.apps.remove("b")
    removals.begin()
    await world.settled()
    assert not world.installed
    assert not list(removals._folder.glob("*"))


async def test_one_that_is_deleted_while_others_are_removed_is_not_missed(world: World, removals: Removals) -> None:
    for name in ("a", "b"):
        await removals.note([version(name)])
        world.apps.remove(name)
        removals.begin()
    await world.settled()
    assert not world.installed


async def test_a_node_that_is_lost_is_asked_again_when_it_is_back(world: World, removals: Removals) -> None:
    world.broken = True
    await removals.note([version("a")])
    world.apps.remove("a")
    removals.begin()
    await world.settled()
    assert world.installed == {"a", "b"}
    world.broken = False
    for wake in world.wakes:
        wake()
    await world.settled()
    assert world.installed == {"b"}
