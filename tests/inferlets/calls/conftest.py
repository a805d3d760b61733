"""Guests on one dummy engine. When a test is over nothing of them may be left in it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.base import Launch, Limits
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.messaging import LocalMessaging
from tests.engine.session.support import settled
from tests.inferlets.calls.support import Here, Kept, Make

SERVER = Path(__file__).parents[1] / "sdk" / "mcp_server.py"


@pytest.fixture(scope="session")
def shared() -> Iterator[list[ServedModel]]:
    models = [
        ServedModel.load(ModelSpec(name=name, source="dummy", seed=seed, page_size=4, kv_tokens=65536))
        for name, seed in (("dummy", 7), ("other", 8))
    ]
    yield models
    for model in models:
        model.close()


@pytest.fixture
def served(shared: list[ServedModel]) -> Iterator[ServedModel]:
    """Every test leaves it empty: no page held, no context, no job."""
    yield shared[0]
    for model in shared:
        settled(model)
        assert not model.planner.contexts.charges._charged


@pytest.fixture
def engine(served: ServedModel, shared: list[ServedModel]) -> Engine:
    return Engine(shared)


@pytest.fixture(scope="session")
def kitchen() -> Iterator[ConfiguredMcp]:
    servers = ConfiguredMcp([McpServer(name="kitchen", command=(sys.executable, str(SERVER)))])
    yield servers
    servers.close()


@pytest.fixture
def services(kitchen: ConfiguredMcp) -> Here:
    return Here(LocalMessaging(), kitchen)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def make(engine: Engine, services: Here, kept: Kept, tmp_path: Path) -> Iterator[Make]:
    guests: list[Guest] = []
    numbers = itertools.count(1)

    def made(owner: str = "ada", adapters: bool = True, depth: int = 0, **limits: Any) -> Guest:
        launch = Launch(
            id=f"instance-{next(numbers)}",
            owner=owner,
            username=f"{owner}.l",
            program="tale@1.0.0",
            limits=Limits(**limits),
            depth=depth,
        )
        guests.append(Guest(launch, engine, services, kept, adapters=tmp_path / "adapters" if adapters else None))
        return guests[-1]

    yield made
    for guest in guests:
        guest.close()
        guest.close()
        assert len(guest.waits) == len(guest.contexts) == len(guest.matchers) == len(guest.masks) == 0


@pytest.fixture
def guest(make: Make) -> Guest:
    return make()
