"""MCP servers at the client: requests of the programs that it launched go out to it, and its replies come back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from bakehouse.inferlets.base import Launch, McpServers, McpSession
from bakehouse.inferlets.dialogue.frames import encode
from bakehouse.inferlets.dialogue.outgoing import Outgoing
from bakehouse.inferlets.errors import McpFailed, NotRunning, Refused
from bakehouse.inferlets.mcp import check_request

#: Servers of one client, requests that it has not answered.
MOST_SERVERS, MOST_OPEN = 64, 1024


class Relay:
    """Of one client. `request` may be called from any thread."""

    def __init__(self, out: Outgoing) -> None:
        self.names: set[str] = set()
        #: The instances whose requests it gets.
        self.ids: set[str] = set()
        self._out = out
        self._count = itertools.count(1)
        self._open: dict[int, Future[Any]] = {}
        self._closed = False

    def register(self, name: str) -> None:
        """Raises `Refused`."""
        if name not in self.names and len(self.names) >= MOST_SERVERS:
            raise Refused(f"a client relays at most {MOST_SERVERS} MCP servers")
        self.names.add(name)

    def request(self, process: str, server: str, method: str, params: dict[str, Any]) -> Future[Any]:
        """The client's result, plain JSON. Fails with `McpFailed`."""
        result: Future[Any] = Future()
        if self._closed:
            result.set_exception(McpFailed(f"the client that serves {server!r} is gone"))
            return result
        if len(self._open) >= MOST_OPEN:
            result.set_exception(McpFailed(f"{server}: {MOST_OPEN} requests wait for their answer already"))
            return result
        number = next(self._count)
        self._open[number] = result
        # Whoever gives it up frees its place; a late reply then finds nobody.
        result.add_done_callback(lambda _: self._open.pop(number, None))
        frame = {
            "request": number,
            "op": "mcp",
            "process": process,
            "server": server,
            "method": method,
            "params": params,
        }
        self._out.post(encode(frame))
        return result

    def answered(self, frame: Mapping[str, Any]) -> None:
        """A reply of the client; one that nobody waits for any more is dropped."""
        number = frame["reply"]
        result = self._open.pop(number, None) if isinstance(number, int) else None
        if result is None or not result.set_running_or_notify_cancel():
            return
        if "error" not in frame:
            result.set_result(frame.get("result"))
            return
        error = frame["error"]
        text = error.get("message") if isinstance(error, Mapping) else None
        result.set_exception(McpFailed(str(text or "the client's MCP server answered with an error")))

    def close(self) -> None:
        """Fail what waits. May be repeated."""
        self._closed = True
        for number in list(self._open):
            self.answered({"reply": number, "error": {"message": "the client that serves it is gone"}})


class Relays(McpServers):
    """The servers of *configured*, and for the programs of a client those that it relays. Thread-safe.

    A child has the servers of the program that spawned it. *parent* finds a launch that runs, by id and owner.
    """

    def __init__(self, configured: McpServers) -> None:
        self._configured = configured
        self._relays: dict[str, Relay] = {}
        self.parent: Callable[[str, str], Launch] | None = None

    def add(self, id: str, relay: Relay) -> None:
        """The instance *id* is launched for the client of *relay*."""
        if relay.names:
            self._relays[id] = relay
            relay.ids.add(id)

    def drop(self, relay: Relay, id: str | None = None) -> None:
        """Forget the instance *id*, or all of *relay*."""
        for known in (id,) if id is not None else tuple(relay.ids):
            self._relays.pop(known, None)
            relay.ids.discard(known)

    def names(self, launch: Launch) -> list[str]:
        relay = self._of(launch)
        own = sorted(relay.names) if relay is not None else []
        return [*own, *(name for name in self._configured.names(launch) if name not in own)]

    def connect(self, launch: Launch, name: str) -> Future[McpSession]:
        """A relayed server stands before a configured one of its name."""
        relay = self._of(launch)
        if relay is None or name not in relay.names:
            return self._configured.connect(launch, name)
        found: Future[McpSession] = Future()
        found.set_result(_Session(relay, launch.id, name))
        return found

    def _of(self, launch: Launch) -> Relay | None:
        while self._relays:
            found = self._relays.get(launch.id)
            if found is not None or launch.parent is None or self.parent is None:
                return found
            try:
                launch = self.parent(launch.parent, launch.owner)
            except NotRunning:
                return None
        return None


class _Session(McpSession):
    """There is nothing to open or close: the client answers each request by itself."""

    def __init__(self, relay: Relay, process: str, server: str) -> None:
        self._relay, self._process, self._server = relay, process, server

    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        check_request(self._server, method)
        return self._relay.request(self._process, self._server, method, params)

    def close(self) -> None:
        pass
