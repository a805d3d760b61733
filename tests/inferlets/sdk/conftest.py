"""The dummy engine, and `inferlet` connected to a guest of it in this process, of which nothing may be left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import inferlet
import pytest
from inferlet import Context, Model

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.calls.native import NativeHost, open_native
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.messaging import LocalMessaging
from tests.engine.session.support import settled
from tests.inferlets.sdk.support import Alone, Open, Seen

SERVER = Path(__file__).with_name("mcp_server.py")


@pytest.fixture(scope="session")
def served() -> Iterator[ServedModel]:
    model = ServedModel.load(ModelSpec(name="dummy", source="dummy", page_size=4, kv_tokens=65536))
    yield model
    model.close()


@pytest.fixture(scope="session")
def services() -> Iterator[Alone]:
    mcp = ConfiguredMcp([McpServer(name="kitchen", command=(sys.executable, str(SERVER)))])
    yield Alone(LocalMessaging(), mcp)
    mcp.close()


@pytest.fixture
def native(served: ServedModel, services: Alone, tmp_path: Path) -> Iterator[Open]:
    """``with native(owner="ada") as host:`` is one program; `inferlet` speaks to the newest one."""

    @contextlib.contextmanager
    def opened(owner: str = "ada", seen: Seen | None = None) -> Iterator[NativeHost]:
        host = open_native(
            Engine([served]), owner=owner, services=services, outlet=seen or Seen(), adapters=tmp_path / "adapters"
        )
        with inferlet.connect(host):
            yield host

    yield opened
    settled(served)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def host(native: Open, seen: Seen) -> Iterator[NativeHost]:
    with native(seen=seen) as opened:
        yield opened


@pytest.fixture
def model(host: NativeHost) -> Model:
    return Model.load("dummy")


@pytest.fixture
def ctx(model: Model) -> Context:
    context = Context(model)
    context.system("You are brief.")
    context.user("Hello!")
    return context
