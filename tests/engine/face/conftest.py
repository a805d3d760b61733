"""One engine, reached in this process and over a socket; after each test the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from bakehouse.engine.face import AsyncEngine
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.remote import RemoteEngine
from bakehouse.engine.serve import Server
from bakehouse.engine.spec import ModelSpec
from tests.engine.session.support import settled

SPEC = ModelSpec(name="dummy", source="dummy", seed=7)


@pytest.fixture(scope="module")
def shared() -> Iterator[ServedModel]:
    served = ServedModel.load(SPEC)
    yield served
    served.close()


@pytest_asyncio.fixture
async def served(shared: ServedModel) -> AsyncIterator[ServedModel]:
    """The module's dummy. Every test leaves it empty: no page held, no context, no job."""
    yield shared
    await asyncio.to_thread(settled, shared)


@pytest_asyncio.fixture
async def server(served: ServedModel, tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(Engine([served]), tmp_path / "engine.sock", patience=2.0)
    await found.start()
    yield found
    await found.close()


@asynccontextmanager
async def reached(way: str, served: ServedModel, path: Path) -> AsyncIterator[AsyncEngine]:
    """*served* in this process, or over a socket in *path*."""
    local = Engine([served])
    if way == "in process":
        yield local
        return
    found = Server(local, path / f"{way}.sock")
    await found.start()
    remote = await RemoteEngine.connect(path / f"{way}.sock")
    yield remote
    await remote.close()
    await found.close()


@pytest_asyncio.fixture(params=["in process", "socket"])
async def engine(request: pytest.FixtureRequest, served: ServedModel, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with reached(request.param, served, tmp_path) as found:
        yield found
