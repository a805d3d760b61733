"""``python -m bakehouse.wiring.node``: an engine and the inferlet host over it, a process that `Node` keeps running.

The engine listens at the path it is given, the host beside it. Neither the server nor its database is here: what an
inferlet's client, files and tasks are is the platform's business, at the other end of the socket.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakehouse.core.errors import BakehouseError
from bakehouse.engine.child import Stop, run_child
from bakehouse.engine.errors import BadRequest, EngineError
from bakehouse.engine.launching import Config
from bakehouse.inferlets.base import Limits, OwnerLimits

if TYPE_CHECKING:
    from bakehouse.inferlets.mcp import McpServer
    from bakehouse.wiring.local import Local

HOST_SOCKET, DIALOGUE_SOCKET = "inferlets.sock", "dialogues.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What the host is told: its folders (``folder`` for what is compiled), how many instances there may be in all,
    `OwnerLimits`, the `Limits` of what clients launch and, a dict each, what makes an `McpServer`. ``home``: the data
    directory whose new models are served too; none when it is empty."""

    folder: str
    programs: str
    most: int = 512
    owner: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    mcp: list[dict[str, Any]] = field(default_factory=list, repr=False)
    home: str = ""

    def body(self) -> dict[str, Any]:
        """As `Config.more`."""
        return asdict(self)


async def _serve(config: Config, path: Path) -> Stop:
    # Imported here: they load torch and wasmtime, and what is missing of them must be told as other refusals are.
    try:
        from bakehouse.engine.serve import Server
        from bakehouse.engine.watchdog import Watchdog
        from bakehouse.inferlets.dialogue import Desk
        from bakehouse.inferlets.dialogue.serving import DialogueServer
        from bakehouse.inferlets.processes import Processes
        from bakehouse.inferlets.serve import HostServer
        from bakehouse.wiring.local import local_host
        from bakehouse.wiring.watching import watching
    except ModuleNotFoundError as error:
        raise EngineError(f"{error.name} is not installed; pip install 'bakehouse[inferlets]' brings it") from error
    told = _read(config)
    async with AsyncExitStack() as stack:
        limits = OwnerLimits(**told.owner)
        servers = [mcp_server(server) for server in told.mcp]
        opened = local_host(
            config.specs, Path(told.folder), programs=Path(told.programs), limits=limits, most=told.most, mcp=servers
        )
        local = await stack.enter_async_context(_refused(opened))
        if told.home:
            await stack.enter_async_context(watching(Path(told.home), local.engine, _to_stderr))
        stack.callback(Watchdog(local.engine.trouble).close)
        engine = Server(local.engine, path)
        await engine.start()
        stack.push_async_callback(engine.close, config.drain)
        host = HostServer(local.host, local.programs, path.with_name(HOST_SOCKET))
        await host.start()
        stack.push_async_callback(host.close)
        desk = Desk(Processes(local.host), local.programs, local.relays, Limits(**told.limits))
        dialogues = DialogueServer(desk, path.with_name(DIALOGUE_SOCKET))
        await dialogues.start()
        stack.push_async_callback(dialogues.close)
        return stack.pop_all().aclose
    raise AssertionError("unreachable")


@asynccontextmanager
async def _refused(opened: AbstractAsyncContextManager[Local]) -> AsyncIterator[Local]:
    """*opened*; what it lacks is told as every other refusal of a process is."""
    try:
        async with opened as local:
            yield local
    except BakehouseError as error:
        raise EngineError(error.detail) from error


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # the server logs what this process says


def mcp_server(told: Mapping[str, Any]) -> McpServer:
    """One of `NodeConfig.mcp`."""
    from bakehouse.inferlets.mcp import McpServer

    return McpServer(**{**told, "command": tuple(told["command"])})


def _read(config: Config) -> NodeConfig:
    try:
        return NodeConfig(**config.more)
    except TypeError as error:
        raise BadRequest(f"the node's configuration cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(run_child("bakehouse.wiring.node", _serve))
