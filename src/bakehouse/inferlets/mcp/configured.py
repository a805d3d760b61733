"""The servers that an operator configured.

A connection belongs to one owner and one server, and the owner's programs share it. It is made for the first session,
made again after its server died, and closed when nobody has had a session for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from bakehouse.inferlets.base import Launch, McpServers, McpSession
from bakehouse.inferlets.errors import McpFailed
from bakehouse.inferlets.mcp.base import LoopThread, McpServer, check_request
from bakehouse.inferlets.mcp.link import Link, SessionOver

#: Requests of one owner to one server that may be unanswered.
MOST_OPEN = 1024
#: Seconds that a connection is kept without a session, and that a server that could not be reached is left alone.
IDLE, PAUSE = 60.0, 1.0


class ConfiguredMcp(McpServers):
    """Thread-safe. ``idle`` is how many seconds a connection is kept without a session."""

    def __init__(self, servers: Iterable[McpServer] = (), *, idle: float = IDLE) -> None:
        self._servers: dict[str, McpServer] = {}
        for server in servers:
            if server.name in self._servers:
                raise ValueError(f"two MCP servers are named {server.name!r}")
            self._servers[server.name] = server
        self._idle = idle
        self._thread = LoopThread("inferlets-mcp")
        #: Touched on the loop only.
        self._connections: dict[tuple[str, str], _Connection] = {}

    def names(self, launch: Launch) -> list[str]:
        return [server.name for server in self._servers.values() if _allows(server, launch)]

    def connect(self, launch: Launch, name: str) -> Future[McpSession]:
        """A session; the server can be reached then. Raises `McpFailed` for no server of *launch*, or fails with it."""
        server = self._servers.get(name)
        if server is None or not _allows(server, launch):
            raise McpFailed(f"there is no MCP server {name!r}; there are: {', '.join(self.names(launch)) or 'none'}")
        session = _Session(self._thread, server.name)
        future = self._thread.run(self._connect(launch.owner, server, session))
        # Who does not get the session cannot close it.
        future.add_done_callback(lambda done: session.close() if done.cancelled() or done.exception() else None)
        return future

    def close(self) -> None:
        """End all connections and the servers that were started. May be repeated."""
        self._thread.close(self._close)

    # On the loop

    async def _connect(self, owner: str, server: McpServer, session: _Session) -> McpSession:
        key = owner, server.name
        connection = self._connections.get(key)
        if connection is None:
            connection = self._connections[key] = _Connection(server, self._idle, lambda: self._connections.pop(key))
        session.enter(connection)
        await connection.link()
        return session

    async def _close(self) -> None:
        connections = list(self._connections.values())
        self._connections.clear()
        await asyncio.gather(*(connection.close() for connection in connections))


def _allows(server: McpServer, launch: Launch) -> bool:
    return server.owners is None or launch.owner in server.owners


class _Session(McpSession):
    """What one program has of a connection."""

    def __init__(self, thread: LoopThread, server: str) -> None:
        self._thread, self._server = thread, server
        self._connection: _Connection | None = None
        self._closed = False

    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        check_request(self._server, method)
        connection = self._connection
        if connection is None:
            raise McpFailed(f"MCP server {self._server!r}: this session is closed")
        return self._thread.run(connection.request(method, params))

    def close(self) -> None:
        """May be repeated. Requests that are under way go on."""
        self._thread.call(self._leave)

    # On the loop

    def enter(self, connection: _Connection) -> None:
        if self._closed:
            raise asyncio.CancelledError
        connection.enter()
        self._connection = connection

    def _leave(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()


class _Connection:
    """The connection of one owner to one server, as long as somebody wants it. On the loop."""

    def __init__(self, server: McpServer, idle: float, on_unused: Callable[[], object]) -> None:
        self._server = server
        self._idle = idle
        self._on_unused = on_unused
        self._sessions = self._open = 0
        self._timer: asyncio.TimerHandle | None = None
        self._link: asyncio.Task[Link] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._failed_at, self._failure = float("-inf"), ""

    def enter(self) -> None:
        self._sessions += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        self._sessions -= 1
        if not self._sessions:
            self._timer = asyncio.get_running_loop().call_later(self._idle, self._be_unused)

    def _be_unused(self) -> None:
        self._on_unused()
        self._drop()

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        if self._open >= MOST_OPEN:
            raise McpFailed(f"MCP server {self._server.name!r}: at most {MOST_OPEN} requests may be unanswered")
        self._open += 1
        try:
            try:
                return await (await self.link()).request(method, params)
            except SessionOver:
                return await (await self.link()).request(method, params)
        finally:
            self._open -= 1

    async def link(self) -> Link:
        """The open link; where it broke another one, for all who ask meanwhile. Raises `McpFailed`."""
        task = self._link
        if task is not None and task.done() and (task.cancelled() or task.exception() or not task.result().open):
            self._drop()
            task = None
        if task is None:
            loop = asyncio.get_running_loop()
            if loop.time() - self._failed_at < PAUSE:
                raise McpFailed(self._failure)
            task = self._link = loop.create_task(Link.open_to(self._server))
        try:
            # Shielded: one who gives up must not take it from the others.
            return await asyncio.shield(task)
        except McpFailed as error:
            self._failed_at, self._failure = asyncio.get_running_loop().time(), error.detail
            raise

    def _drop(self) -> None:
        """Close the link, beside what goes on."""
        task, self._link = self._link, None
        if task is not None:
            closing = asyncio.get_running_loop().create_task(_close_link(task))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        await asyncio.gather(*self._closing)


async def _close_link(task: asyncio.Task[Link]) -> None:
    task.cancel()  # where it is still being made
    with suppress(asyncio.CancelledError, McpFailed):  # it never became a link
        await (await task).close()
