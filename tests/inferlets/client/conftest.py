"""One server for all of these tests, with `tool.py` installed as ``tool@1.0.0`` for the owner ``local``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from inferlet.client import Client, connect

from tests.inferlets.client.support import PieServer, manifest
from tests.inferlets.conftest import Build


@pytest.fixture(scope="session")
def tool(built: Build) -> bytes:
    """`tool.py` as a component."""
    return built((Path(__file__).parent / "tool.py").read_text()).read_bytes()


@pytest.fixture(scope="session")
def pie(tmp_path_factory: pytest.TempPathFactory, tool: bytes) -> Iterator[PieServer]:
    server = PieServer(tmp_path_factory.mktemp("pie") / "home").start()

    async def install() -> None:
        async with connect(server.address, token=server.key) as client:
            await client.install(tool, manifest("tool"))

    try:
        asyncio.run(install())
        yield server
    finally:
        server.kill()


@pytest.fixture
async def client(pie: PieServer) -> AsyncIterator[Client]:
    async with connect(pie.address, token=pie.key) as found:
        yield found
