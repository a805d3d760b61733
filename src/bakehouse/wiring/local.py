"""An engine, a sandbox and an inferlet host in this process: what `pie run` and `pie serve` stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bakehouse.core.errors import NotConfigured
from bakehouse.engine.errors import EngineError
from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import DUMMY, ModelSpec
from bakehouse.inferlets.base import OwnerLimits
from bakehouse.inferlets.dialogue.relay import Relays
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.settings import Settings
from bakehouse.wiring.chosen import FOLDER

__all__ = ["DUMMY_MODEL", "FOLDER", "Local", "local_host", "mcp_servers"]

#: The engine of ``--dummy``: no weights, files or network, and the same answers each time.
DUMMY_MODEL = ModelSpec(name="dummy", source=DUMMY, seed=1)


@dataclass(frozen=True, slots=True)
class Local:
    """Valid inside `local_host`."""

    engine: Engine
    host: InferletHost
    programs: ProgramStore
    relays: Relays
    #: Below it each owner may load and save adapters.
    adapters: Path


def mcp_servers(settings: Settings) -> list[McpServer]:
    """Those that the operator named."""
    told = {name: server.model_dump() for name, server in settings.mcp_servers.items()}
    return [McpServer(name=name, **{**it, "command": tuple(it["command"])}) for name, it in told.items()]


@asynccontextmanager
async def local_host(
    specs: Sequence[ModelSpec],
    folder: Path,
    *,
    programs: Path | None = None,
    shared: bool = False,
    limits: OwnerLimits | None = None,
    most: int = 512,
    grace: float = 0.0,
    mcp: Sequence[McpServer] = (),
) -> AsyncIterator[Local]:
    """Start them, with what is compiled kept below *folder*, and end them.

    *programs* is where programs are installed, by this process only, unless they are *shared* with another one that
    may be running: then none can be installed. *grace* seconds are left to instances at
    the end. Raises `EngineError` for a model that cannot be loaded, `NotConfigured` where a library is missing.
    """
    try:
        from bakehouse.inferlets.sandbox import Sandbox
    except ModuleNotFoundError as error:
        raise NotConfigured(f"{error.name} is not installed; pip install 'bakehouse[inferlets]' brings it") from error
    engine = await _engine(specs)
    sandbox = Sandbox(folder / "compiled")
    try:
        store = ProgramStore(programs or folder / "programs", sandbox, shared=shared, limits=limits)
        configured = ConfiguredMcp(mcp)
        relays = Relays(configured)
        adapters = folder / "adapters"
        host = InferletHost(
            engine, sandbox, store, limits=limits or OwnerLimits(), most=most, mcp=relays, adapters=adapters
        )
        relays.parent = lambda id, owner: host.instance(id, owner).launch
        try:
            yield Local(engine, host, store, relays, adapters)
        finally:
            host.close(grace)
            configured.close()
    finally:
        sandbox.close()
        await engine.close()


async def _engine(specs: Sequence[ModelSpec]) -> Engine:
    try:
        return await Engine.start(specs)
    except ModuleNotFoundError as error:
        raise EngineError(f"{error.name} is not installed; pip install 'bakehouse[engine]' brings it") from error
