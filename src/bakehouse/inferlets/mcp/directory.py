"""Which servers an instance sees: the operator's, and those of the client that launched it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

from bakehouse.inferlets.base import Launch, McpServers, McpSession
from bakehouse.inferlets.errors import Refused
from bakehouse.inferlets.mcp.base import TIMEOUT, LoopThread, McpServer
from bakehouse.inferlets.mcp.configured import IDLE, ConfiguredMcp
from bakehouse.inferlets.mcp.relayed import RelayedMcp, RelayedRequest


class McpDirectory(McpServers):
    """Thread-safe. The operator's servers go before a client's of the same name. Children see the operator's only."""

    def __init__(self, servers: Iterable[McpServer] = (), *, idle: float = IDLE) -> None:
        self._thread = LoopThread("inferlets-mcp")
        self._configured = ConfiguredMcp(servers, idle=idle, thread=self._thread)
        self._relays: dict[str, RelayedMcp] = {}

    def relay(self, send: Callable[[RelayedRequest], None], *, timeout: float = TIMEOUT) -> RelayedMcp:
        """For one client, who gets requests by *send*: called on a thread of ours, and not to block."""
        return RelayedMcp(self._thread, send, timeout=timeout)

    def lend(self, instance: str, relayed: RelayedMcp) -> None:
        """From now on *instance* sees the servers of *relayed*: to be called before its launch. Raises `Refused`."""
        if self._relays.setdefault(instance, relayed) is not relayed:
            raise Refused(f"instance {instance} has the servers of another client")

    def withdraw(self, instance: str) -> None:
        """After the end of *instance*. May be repeated."""
        self._relays.pop(instance, None)

    def names(self, launch: Launch) -> list[str]:
        own = self._configured.names(launch)
        relayed = self._relays.get(launch.id)
        return own if relayed is None else own + [name for name in relayed.names if name not in own]

    def connect(self, launch: Launch, name: str) -> Future[McpSession]:
        relayed = self._relays.get(launch.id)
        if relayed is None or name in self._configured.names(launch) or name not in relayed.names:
            return self._configured.connect(launch, name)
        found: Future[McpSession] = Future()
        found.set_result(relayed.session(launch.id, name))
        return found

    def close(self) -> None:
        """End all connections and the servers that were started. May be repeated."""
        self._configured.close()
