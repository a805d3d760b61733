"""The engine's face over a Unix socket: one `Client` per connection, its sessions freed when it goes.

All that one turn of the loop gives a client, the chunks of one step of all its streams among it, leaves in one frame.
Streams of a client that is behind wait; their generations go on, and end at the longest context at the latest.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from bakehouse.engine import wire
from bakehouse.engine.channel import Listener, greet
from bakehouse.engine.errors import BadRequest, Cancelled, EngineError, EngineLost, LimitExceeded, NotFound
from bakehouse.engine.handle import Engine, Handle, HandleStream
from bakehouse.engine.link import Link
from bakehouse.engine.wire import Call, Cancel, Frame, Hello, Open, WireError

MAX_CALLS = 4096
"""Calls and streams of one connection at one time; one more is `LimitExceeded`."""

_BATCH_BYTES = 4 * 2**20


class Server(Listener["Client"]):
    """Serves *engine* at *path*, readable by this user only. Does not close the engine."""

    def __init__(self, engine: Engine, path: Path, patience: float = 60.0) -> None:
        super().__init__(path)
        self.engine = engine
        self._patience = patience

    def new_client(self) -> Client:
        return Client(self)

    def new_link(self, client: Client) -> Link:
        return Link(client.on_frame, client.on_lost, self._patience, _farewell)

    async def close(self, drain: float = 0.0) -> None:
        """Take no new work, wait up to *drain* seconds for what runs, then end all connections. May be repeated."""
        self.stop_listening()
        clients = list(self._clients)
        running = [task for client in clients for task in client.tasks]
        if running and drain > 0:
            await asyncio.wait(running, timeout=drain)
        await asyncio.gather(*(client.end("the engine is stopping") for client in clients))
        self._path.unlink(missing_ok=True)


def _farewell(reason: str) -> bytes:
    return wire.dump([wire.error_item(0, EngineLost(f"the engine closed the connection: {reason}"))])


class Client:
    """One connection: its sessions, and a task for each call and stream."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._greeted = False
        self._sessions: dict[int, Handle] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, _Stream] = {}
        self._out: list[list[Any]] = []
        self._ended: asyncio.Task[None] | None = None
        self.link = server.new_link(self)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._running.values())

    # What comes

    def on_frame(self, link: Link, frame: Frame) -> None:
        if not self._greeted:
            greet(link, frame.body, wire.VERSION, "engine")
            self._greeted = True
            return
        message = wire.read_message(frame.body)
        if isinstance(message, Cancel):
            # In its turn: calls that came before it start at the next turn of the loop.
            asyncio.get_running_loop().call_soon(self._cancel, message)
        elif isinstance(message, Hello):
            raise WireError("a second hello")
        else:
            self._start(message)

    def _start(self, message: Open | Call) -> None:
        if message.id < 1 or message.id in self._running:
            raise WireError(f"{message.id} is no number for a new call")
        if len(self._running) >= MAX_CALLS and not (isinstance(message, Call) and message.method == "close"):
            self.put(wire.error_item(message.id, LimitExceeded(f"{MAX_CALLS} calls of this connection are running")))
            return
        work = self._open(message) if isinstance(message, Open) else self._call(message)
        task = asyncio.get_running_loop().create_task(self._answered(message.id, work))
        self._running[message.id] = task
        task.add_done_callback(lambda _: self._running.pop(message.id, None))

    def _cancel(self, message: Cancel) -> None:
        if message.id in self._streams:
            try:
                self._streams[message.id].close(message.taken)
            except BadRequest as error:
                self.link.close(error.detail)
        elif message.id in self._running:
            self._running[message.id].cancel()

    async def _answered(self, identity: int, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*; an error becomes its answer."""
        try:
            await work
        except EngineError as error:
            self.put(wire.error_item(identity, error))
        except asyncio.CancelledError:
            self.put(wire.error_item(identity, Cancelled("the call was given up")))
        except Exception as error:
            # A fault of ours: the log gets the stack, the caller an answer, the other calls go on.
            traceback.print_exc(file=sys.stderr)
            self.put(wire.error_item(identity, EngineError(f"the engine failed: {type(error).__name__}: {error}")))

    # Calls

    async def _open(self, message: Open) -> None:
        if self._server.stopping:
            raise EngineLost("the engine is stopping")
        if message.session < 1 or message.session in self._sessions:
            raise BadRequest.at("session", f"{message.session} is taken, or no session number")
        session = await self._server.engine.open(message.model, message.owner, message.program)
        if not self.link.open:
            await session.close()
            return
        self._sessions[message.session] = session
        self.put(["r", message.id, session.model])

    async def _call(self, call: Call) -> None:
        for identity, taken in call.taken:
            if identity in self._streams:
                self._streams[identity].chunks.report(taken)
        arguments = wire.read_arguments(call)
        target: Any = self._server.engine if call.session == 0 else self._session(call.session)
        if call.method == "generate":
            await self._generate(call.id, target, arguments)
            return
        if call.method == "close":
            self._sessions.pop(call.session, None)
        self.put(["r", call.id, wire.result_body(call.method, await getattr(target, call.method)(**arguments))])

    def _session(self, number: int) -> Handle:
        try:
            return self._sessions[number]
        except KeyError:
            raise NotFound(f"there is no session {number} on this connection") from None

    async def _generate(self, identity: int, session: Handle, arguments: dict[str, Any]) -> None:
        if self._server.stopping:
            raise EngineLost("the engine is stopping")
        stream = _Stream(await session.generate(**arguments))
        self._streams[identity] = stream
        self.put(["r", identity, None])
        try:
            async for chunk in stream.chunks:
                self.put(["c", identity, chunk])
                if self.link.behind:
                    await self.link.writable()
            await stream.closed.wait()
        finally:
            del self._streams[identity]
            stream.chunks.cancel()

    # What goes

    def put(self, item: list[Any]) -> None:
        """Send *item* at the end of this turn of the loop."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(item)

    def _flush(self) -> None:
        items, self._out = self._out, []
        if not self.link.open:
            return
        try:
            self.link.send(wire.dump(items))
        except (LimitExceeded, TypeError, ValueError) as error:
            self._send_one_by_one(items, error)

    def _send_one_by_one(self, items: list[list[Any]], error: Exception) -> None:
        """All of *items* were too much for a frame, or one of them cannot be sent: that one becomes an error."""
        if len(items) > 1:
            for item in items:
                self._out = [item]
                self._flush()
            self._out = []
            return
        refused = error if isinstance(error, EngineError) else EngineError(f"the answer cannot be sent: {error}")
        self.link.send(wire.dump([wire.error_item(items[0][1], refused)]))

    # The end

    def on_lost(self, link: Link, reason: str) -> None:
        if reason and not self._server.stopping:
            print(f"a client's connection ended: {reason}", file=sys.stderr)
        self._server.forget(self)
        self._ended = asyncio.get_running_loop().create_task(self._free())

    async def end(self, reason: str) -> None:
        """Tell the client why, and free what it holds."""
        self._flush()
        self.link.close(reason)
        self._server.forget(self)
        await self._free()

    async def _free(self) -> None:
        """Cancel what runs and close the sessions. May be repeated."""
        running = self.tasks
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()


class _Stream:
    """A stream whose reader is at the other end: it lasts until that one closes it."""

    def __init__(self, chunks: HandleStream) -> None:
        self.chunks = chunks
        self.closed = asyncio.Event()
        chunks.be_distant()

    def close(self, taken: int) -> None:
        """Raises `BadRequest` for more tokens than were sent."""
        if taken == wire.READ_OUT:
            self.chunks.read_out()
        else:
            self.chunks.cancel(taken)
        self.closed.set()
