"""The stages on which examples run: natively and in the sandbox, on the dummy and on a tiny real model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE, Build
from tests.inferlets.examples.stages import Baked, Native
from tests.inferlets.examples.support import EXAMPLES

HostOf = Callable[[ModelSpec], AbstractContextManager[tuple[Engine, InferletHost]]]
Stages = tuple[Native, Baked]

TOOLS = McpServer(name="bakery", command=(sys.executable, str(EXAMPLES / "agent-react" / "server" / "bakery.py")))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(CACHE / "compiled")
    yield made
    made.close()


@pytest.fixture(scope="session")
def tools() -> Iterator[ConfiguredMcp]:
    made = ConfiguredMcp([TOOLS])
    yield made
    made.close()


@pytest.fixture(scope="session")
def host_of(sandbox: Sandbox, tools: ConfiguredMcp, tmp_path_factory: pytest.TempPathFactory) -> HostOf:
    """An engine of one model, with a host of inferlets beside it."""

    @contextmanager
    def serve(spec: ModelSpec) -> Iterator[tuple[Engine, InferletHost]]:
        engine = asyncio.run(Engine.start([spec]))
        host = InferletHost(engine, sandbox, ProgramStore(tmp_path_factory.mktemp("programs"), sandbox), mcp=tools)
        yield engine, host
        host.close()
        asyncio.run(engine.close())

    return serve


@pytest.fixture(scope="session")
def on_the_dummy(host_of: HostOf, built: Build) -> Iterator[Stages]:
    """Natively, and in the sandbox."""
    with host_of(ModelSpec(name="dummy", source="dummy", seed=1)) as (engine, host):
        native = Native(engine, host.services, dummy=True)
        yield native, Baked(host, native, built)


@pytest.fixture(scope="session")
def on_a_tiny_model(host_of: HostOf, built: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """The same on a random model of two layers, with torch."""
    import torch

    from tests.engine.models import make_model

    torch.set_num_threads(1)
    folder = make_model(tmp_path_factory.mktemp("qwen3"), "qwen3")
    spec = ModelSpec(name="tiny", source=str(folder), device="cpu", dtype="fp32", kv_tokens=32768, max_context=4096)
    with host_of(spec) as (engine, host):
        native = Native(engine, host.services, dummy=False)
        yield native, Baked(host, native, built)
