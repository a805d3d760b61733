"""The stages on which examples run: natively and in the sandbox, on the dummy and on a tiny real model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE
from tests.inferlets.examples.stages import Baked, Native

TOOLS = McpServer(name="bakery", command=(sys.executable, str(Path(__file__).parent / "mcp_server.py")))


@pytest.fixture(scope="session")
def dummy() -> Iterator[Engine]:
    yield from _engine(ModelSpec(name="dummy", source="dummy", seed=1))


def _engine(spec: ModelSpec) -> Iterator[Engine]:
    engine = asyncio.run(Engine.start([spec]))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def host(dummy: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferletHost]:
    sandbox, mcp = Sandbox(CACHE / "compiled"), ConfiguredMcp([TOOLS])
    store = ProgramStore(tmp_path_factory.mktemp("programs"), sandbox)
    host = InferletHost(dummy, sandbox, store, mcp=mcp)
    yield host
    host.close()
    mcp.close()
    sandbox.close()


@pytest.fixture(scope="session")
def native(dummy: Engine, host: InferletHost) -> Native:
    return Native(dummy, host.services, dummy=True)


@pytest.fixture(scope="session")
def baked(host: InferletHost, native: Native, built: Callable[[Path], Path]) -> Baked:
    return Baked(host, native, built)


@pytest.fixture(scope="session")
def tiny(host: InferletHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """The same on a random model of two layers, with torch."""
    from tests.engine.models import make_model

    folder = make_model(tmp_path_factory.mktemp("qwen3"), "qwen3")
    spec = ModelSpec(name="tiny", source=str(folder), device="cpu", dtype="fp32", kv_tokens=32768, max_context=4096)
    for engine in _engine(spec):
        yield Native(engine, host.services, dummy=False)
