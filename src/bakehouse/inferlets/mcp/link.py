"""One connection to one MCP server, over the official SDK, which nothing else here knows."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

import bakehouse
from bakehouse.inferlets.errors import McpFailed
from bakehouse.inferlets.mcp.base import McpServer

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client import Transport
    from mcp.client._transport import TransportStreams

log = logging.getLogger(__name__)

_OBJECT = TypeAdapter(dict[str, Any])
_INVALID_REQUEST = -32600


class SessionOver(McpFailed):
    """The server does not know this connection any more, and did nothing. Another one may be tried."""


class Link:
    """Belongs to the event loop that opened it.

    A task of its own holds the SDK's client, because that must be left by the task that entered it.
    """

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._why = "the connection to it was closed"
        self._over = False
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._hold())

    @classmethod
    async def open_to(cls, server: McpServer) -> Link:
        """Start or find *server*, and agree on a version with it. Raises `McpFailed`."""
        link = cls(server)
        try:
            await asyncio.wait_for(asyncio.shield(link._opened), server.start_timeout)
        except TimeoutError:
            await link.close()
            raise link._failed(f"it did not answer in {server.start_timeout:g} s") from None
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def open(self) -> bool:
        """Whether requests can be made, as far as is known."""
        return self._client is not None and not self._stop.is_set()

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The result, plain JSON. Raises `McpFailed`, with the server's code and text where it refused."""
        from mcp.shared.exceptions import MCPError

        try:
            result = await self._unless_stopped(self._ask(method, params))
        except MCPError as error:
            if self._over and error.code == _INVALID_REQUEST:
                self._stop.set()
                raise SessionOver(self._failed("it was started anew").detail) from None
            raise self._failed(f"{error.message} (code {error.code})") from None
        except (ValueError, RuntimeError, OSError) as error:
            # An answer that is not as the protocol says, or a transport that broke under the request.
            raise self._failed(f"{type(error).__name__}: {error}") from None
        if result.get("resultType") == "input_required":
            raise self._failed(f"{method} asks for input that a program cannot give")
        return result

    async def close(self) -> None:
        """End it, and the server that was started for it. May be repeated."""
        self._stop.set()
        if not self._opened.done():
            self._task.cancel()
        await asyncio.wait((self._task,))

    async def _unless_stopped(self, work: Any) -> Any:
        asked, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((asked, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise self._failed(self._why)
            return asked.result()
        finally:
            asked.cancel()
            stopped.cancel()

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        from mcp.shared.exceptions import MCPError
        from mcp_types import HEADER_MISMATCH, Request

        if self._client is None:
            raise self._failed(self._why)
        client, timeout = self._client, self._server.timeout
        try:
            request = Request[Any, Any](method=method, params=params)
            # The SDK's types know results of its own classes only; a program gets what the server said.
            return await client.session.send_request(  # type: ignore[type-var]
                request, _OBJECT, request_read_timeout_seconds=timeout
            )
        except MCPError as error:
            if error.code != HEADER_MISMATCH or method != "tools/call":
                raise
        # Such a server wants arguments repeated in headers. The SDK knows which, once it has listed the tools.
        found = await client.call_tool(params.get("name", ""), params.get("arguments"), timeout)
        return found.model_dump(by_alias=True, mode="json", exclude_unset=True)

    async def _hold(self) -> None:
        """Open, stay open until it is to stop or the server is gone, and close."""
        try:
            async with _client(self._server, self._stop.set, self._note_over, self._end_flood) as client:
                self._client = client
                self._opened.set_result(None)
                await self._stop.wait()
        except Exception as error:
            log.warning("MCP server %r: %s", self._server.name, _leaf(error))
            log.debug("MCP server %r", self._server.name, exc_info=True)
            if not self._opened.done():
                self._opened.set_exception(self._failed(f"it could not be reached: {_text(error)}"))
        finally:
            self._client = None
            self._stop.set()
            if not self._opened.done():
                self._opened.cancel()

    def _note_over(self) -> None:
        self._over = True

    def _end_flood(self) -> None:
        from bakehouse.inferlets.mcp.bounded import too_long

        self._why = too_long()
        self._stop.set()
        if not self._opened.done():
            self._opened.set_exception(self._failed(self._why))
            self._task.cancel()

    def _failed(self, text: str) -> McpFailed:
        return McpFailed(f"MCP server {self._server.name!r}: {text}")


@asynccontextmanager
async def _client(
    server: McpServer, on_end: Callable[[], None], on_over: Callable[[], None], on_flood: Callable[[], None]
) -> AsyncIterator[Client]:
    """A client that has agreed on a version.

    *on_end* is called when the server is gone, *on_over* when another one took its place and knows no session of ours,
    *on_flood* when it says too much at one time.
    """
    # Here, because it takes a second to load, and most hosts have no MCP servers.
    from mcp import Client
    from mcp_types import Implementation

    ours = Implementation(name="bakehouse", version=bakehouse.__version__)
    async with (
        _transport(server, on_end, on_over, on_flood) as transport,
        Client(transport, client_info=ours, read_timeout_seconds=server.start_timeout, cache=None) as client,
    ):
        yield client


@asynccontextmanager
async def _transport(
    server: McpServer, on_end: Callable[[], None], on_over: Callable[[], None], on_flood: Callable[[], None]
) -> AsyncIterator[Transport]:
    import httpx2
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    from bakehouse.inferlets.mcp import bounded

    if server.command:
        command, *arguments = server.command
        bounded.on_too_long.set(on_flood)
        parameters = StdioServerParameters(
            command=command, args=arguments, env=dict(server.environment), encoding=bounded.LINES
        )
        # What it prints about itself is for the operator, so it goes where our own lines go.
        yield _watched(stdio_client(parameters, sys.__stderr__ or sys.stderr), on_end)
    else:
        # Streams of events may be silent for long; what takes too long is given up by its request's own timeout.
        patience = httpx2.Timeout(server.start_timeout, read=None)

        async def look(response: httpx2.Response) -> None:
            # Servers say it in words of their own, but the status is the protocol's.
            if response.status_code == 404 and "mcp-session-id" in response.request.headers:
                on_over()
            response.stream = bounded.bounded(response)

        headers, hooks = {"accept-encoding": "identity", **dict(server.headers)}, {"response": [look]}
        async with httpx2.AsyncClient(headers=headers, timeout=patience, event_hooks=hooks) as http:
            client = streamable_http_client(server.url, http_client=http, max_sse_event_size=bounded.MOST)
            yield _watched(client, on_end)


@asynccontextmanager
async def _watched(
    transport: AbstractAsyncContextManager[TransportStreams], on_end: Callable[[], None]
) -> AsyncIterator[TransportStreams]:
    async with transport as (read, write):
        yield _Watched(read, on_end), write


class _Watched:
    """A stream of the SDK that says when it is at its end, which the SDK keeps to itself."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream, self._on_end = stream, on_end

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise

    async def __aenter__(self) -> _Watched:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return bool(await self._stream.__aexit__(*error))


def _text(error: BaseException) -> str:
    """What went wrong, without what only concerns the operator."""
    error = _leaf(error)
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _leaf(error: BaseException) -> BaseException:
    """The first of what the SDK's groups hold."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
