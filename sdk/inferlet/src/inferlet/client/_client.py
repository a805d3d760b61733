"""A client of a server: everything the protocol can ask, as methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from inferlet.client._connection import Connection
from inferlet.client._errors import ConnectionLost
from inferlet.client._events import Ended, Event, event_from
from inferlet.client._process import Process
from inferlet.errors import HostError

#: Answers a request to an MCP server that this client relays: gets the method and its parameters, gives the result.
McpHandler = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Client:
    """A connection to one server. Use it as ``async with connect(url) as client``; its calls raise `HostError`."""

    def __init__(self) -> None:
        self._connection: Connection
        self._processes: dict[str, Process] = {}
        #: What came for a process before the answer that names it was read.
        self._early: dict[str, list[Event]] = {}
        self._relayed: dict[str, McpHandler] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, token: str | None = None) -> Client:
        """Connect to *url*. Raises `Unauthorized`, `ConnectionLost`; to be closed. `connect` does both."""
        client = cls()
        client._connection = await Connection.open(url, token, client._unasked, client._lost)
        return client

    async def hello(self) -> dict[str, Any]:
        """Who this client is and what the server is: owner, username, scopes, version, protocol."""
        return await self._connection.request("hello")

    async def ping(self) -> None:
        """Return when the server has answered."""
        await self._connection.request("ping")

    async def launch(
        self, program: str, arguments: Sequence[str] = (), *, attach: bool = True, limits: dict[str, Any] | None = None
    ) -> Process:
        """Start *program* (``name`` for its latest version, ``name@1.2.3``, ``owner:name@1.2.3``).

        With ``attach=False`` nobody listens to it until somebody attaches. *limits* may only be tighter than the
        server's. Raises `NotFound`, or `LimitExceeded` where no more may run.
        """
        fields: dict[str, Any] = {"program": program, "arguments": list(arguments), "attach": attach}
        if limits is not None:
            fields["limits"] = limits
        found = await self._connection.request("launch", **fields)
        return self._process(found, attached=attach)

    async def attach(self, process_id: str, after: int | None = None) -> Process:
        """Listen to a process: first to what it sent before and nobody took; or all that followed event *after*.

        Raises `NotFound`, or a `HostError` with the code ``attached`` where another client listens already.
        """
        fields: dict[str, Any] = {} if after is None else {"after": after}
        found = await self._connection.request("attach", process=process_id, **fields)
        process = self._process(found, attached=True)
        process.seq = after or 0
        return process

    async def processes(self) -> list[dict[str, Any]]:
        """The processes of this owner: process, program, state (running or ended), attached, started (seconds)."""
        found: list[dict[str, Any]] = (await self._connection.request("list"))["processes"]
        return found

    async def terminate(self, process_id: str) -> None:
        """End that program, one of this owner. Raises `NotFound`."""
        await self._connection.request("terminate", process=process_id)

    async def programs(self) -> list[dict[str, Any]]:
        """The programs that are installed for this owner: program (``name@1.2.3``), description, digest (SHA-256)."""
        found: list[dict[str, Any]] = (await self._connection.request("programs"))["programs"]
        return found

    async def program(self, name: str) -> dict[str, Any]:
        """One of them, ``name`` or ``name@1.2.3``: what `programs` says, and input_schema (JSON Schema).

        Raises `NotFound`.
        """
        return await self._connection.request("program", program=name)

    async def install(self, wasm: bytes, manifest: str, *, force: bool = False) -> str:
        """Install what `bakery build` made, with the text of its ``Pie.toml``; the name to launch it by.

        Installing the same again changes nothing; other content under a version that is there needs *force*.
        Needs the scope ``deploy``.
        """
        found = await self._connection.request("install", wasm, manifest=manifest, force=force)
        return str(found["program"])

    async def remove(self, program: str) -> None:
        """Uninstall ``name@1.2.3``. Needs the scope ``deploy``."""
        await self._connection.request("remove", program=program)

    async def serve_mcp(self, name: str, handler: McpHandler) -> None:
        """Be the MCP server *name* for the programs that this client launches from now on, while it is connected.

        An exception of *handler* is the request's error, and so is a result that JSON cannot say.
        """
        self._relayed[name] = handler
        await self._connection.request("register_mcp", name=name)

    async def close(self) -> None:
        """Processes go on without this client."""
        for task in self._answering:
            task.cancel()
        await self._connection.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _process(self, found: dict[str, Any], *, attached: bool) -> Process:
        process = Process(self._connection, found["process"], found["program"], self._forget)
        if attached:
            self._processes[process.id] = process
            for event in self._early.pop(process.id, ()):
                process._take(event)
        return process

    def _unasked(self, frame: dict[str, Any], data: bytes) -> None:
        if "request" in frame:
            task = asyncio.ensure_future(self._answer(frame))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        event = event_from(frame, data)
        if event is None:
            return
        process = self._processes.get(frame["process"])
        if process is None:
            self._early.setdefault(frame["process"], []).append(event)
        else:
            process._take(event)
            if isinstance(event, Ended):
                self._forget(process.id)

    def _forget(self, process_id: str) -> None:
        self._processes.pop(process_id, None)

    async def _answer(self, frame: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"reply": frame["request"]}
        with suppress(ConnectionLost):  # nobody is left to answer
            try:
                result = await self._relayed[frame["server"]](frame["method"], frame["params"])
                await self._connection.send({**reply, "result": result})
            except ConnectionLost:
                raise
            except Exception as error:
                # Whatever a handler raises, or gives that no frame can hold, is the answer: the program that asked
                # must not wait for ever.
                reply["error"] = {"code": "mcp_error", "message": f"{type(error).__name__}: {error}"}
                await self._connection.send(reply)

    def _lost(self, end: HostError) -> None:
        for process in self._processes.values():
            process._leave(end)


class connect:
    """``async with connect(url, token=KEY) as client``, or ``client = await connect(url, token=KEY)``.

    *url* is ``ws://host:port`` or the server's ``http://`` one; *token* an API key with the scope ``run``.
    Raises `ConnectionLost`, `Unauthorized`.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self._url, self._token = url, token
        self._client: Client | None = None

    def __await__(self) -> Any:
        return Client.open(self._url, self._token).__await__()

    async def __aenter__(self) -> Client:
        self._client = await Client.open(self._url, self._token)
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
