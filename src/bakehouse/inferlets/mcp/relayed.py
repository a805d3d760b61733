"""The servers that a launching client offers: requests go out to it, and it sends what its servers answered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from bakehouse.inferlets.base import McpSession
from bakehouse.inferlets.errors import McpFailed, Refused
from bakehouse.inferlets.mcp.base import TIMEOUT, LoopThread, check_method

#: Servers that one client may offer, requests that may be unanswered at one time, characters of a server's name.
MOST_SERVERS, MOST_OPEN, MAX_NAME = 64, 1024, 256


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    """One request for the client, who answers with its number."""

    number: int
    instance: str
    server: str
    method: str
    params: dict[str, Any]


class RelayedMcp:
    """The servers of one client. Thread-safe. *send* is called on a thread of ours and must not block."""

    def __init__(self, thread: LoopThread, send: Callable[[RelayedRequest], None], *, timeout: float = TIMEOUT) -> None:
        self._thread, self._send, self._timeout = thread, send, timeout
        self._names: dict[str, None] = {}
        self._numbers = itertools.count(1)
        #: Touched on the loop only.
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._closed = False

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def offer(self, name: str) -> None:
        """From now on the client has a server *name*; once more is once. Raises `Refused`."""
        if not 0 < len(name) <= MAX_NAME:
            raise Refused(f"an MCP server's name has 1 to {MAX_NAME} characters, not {len(name)}")
        if name not in self._names and len(self._names) >= MOST_SERVERS:
            raise Refused(f"a client offers at most {MOST_SERVERS} MCP servers")
        self._names[name] = None

    def session(self, instance: str, server: str) -> McpSession:
        """What *instance* has of *server*."""
        return _Session(self, instance, server)

    def request(self, instance: str, server: str, method: str, params: dict[str, Any]) -> Future[Any]:
        """What the client answers. Raises `McpFailed`, or fails with it."""
        check_method(server, method)
        return self._thread.run(self._ask(RelayedRequest(next(self._numbers), instance, server, method, params)))

    def answer(self, number: int, result: Any) -> None:
        """The client's answer. One that nobody waits for any more is dropped."""
        self._thread.call(self._settle, number, result, None)

    def refuse(self, number: int, text: str, code: int | None = None) -> None:
        """The client's, or its server's, error."""
        self._thread.call(self._settle, number, None, text if code is None else f"{text} (code {code})")

    def close(self) -> None:
        """The client is gone: what waits for it fails, and so does what comes. May be repeated."""
        self._closed = True
        self._thread.call(self._fail_all)

    # On the loop

    async def _ask(self, request: RelayedRequest) -> Any:
        place = f"MCP server {request.server!r}"
        if self._closed:
            raise McpFailed(f"{place}: the client that offers it is gone")
        if len(self._open) >= MOST_OPEN:
            raise McpFailed(f"{place}: at most {MOST_OPEN} requests to one client may be unanswered")
        answer = self._open[request.number] = asyncio.get_running_loop().create_future()
        try:
            self._send(request)
            return await asyncio.wait_for(answer, self._timeout)
        except TimeoutError:
            raise McpFailed(f"{place}: the client did not answer in {self._timeout:g} s") from None
        except _Told as error:
            raise McpFailed(f"{place}: {error}") from None
        finally:
            del self._open[request.number]

    def _settle(self, number: int, result: Any, error: str | None) -> None:
        answer = self._open.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(_Told(error))

    def _fail_all(self) -> None:
        for number in list(self._open):
            self._settle(number, None, "the client that offers it is gone")


class _Told(Exception):
    """What the client said went wrong."""


class _Session(McpSession):
    def __init__(self, relayed: RelayedMcp, instance: str, server: str) -> None:
        self._relayed, self._instance, self._server = relayed, instance, server

    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        return self._relayed.request(self._instance, self._server, method, params)

    def close(self) -> None:
        """Nothing is held."""
