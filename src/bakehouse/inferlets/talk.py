"""The way of a dialogue's frames: what any connection of a client does, and one to a dialogue in another process.

Frames are handed on as they come, from the event loop's own callbacks: a queue with a task behind it would cost each
frame a turn of the loop or two. Imports nothing heavy.

Between processes a Unix socket carries them, a connection for each dialogue. Both sides send frames: a byte ``t`` or
``b`` for text or bytes, the length as a big-endian 32-bit number, and so many bytes. The client's first one says who it
is. Who may connect is trusted: it has asked for the key.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import orjson

VERSION = 2
MAX_FRAME = 16 << 20
"""Bytes; no frame of a dialogue is longer."""
_HEAD = struct.Struct(">cI")

Frame = str | bytes
Take = Callable[[Frame], None]


class Wire(Protocol):
    """A client's connection. Of one event loop; nothing here waits but what is ``async``."""

    @property
    def full(self) -> bool:
        """Whether what was written waits to be sent, or nobody is there to get it."""

    def begin(self, take: Take, room: Callable[[], None]) -> None:
        """From now on *take* gets each frame of the client, and *room* is called when it is not `full` any more."""

    def write(self, frame: Frame) -> None:
        """Send *frame*. Nothing happens when the connection is lost."""

    def pause(self) -> None:
        """Read no frames for now. May be repeated."""

    def resume(self) -> None:
        """Read on. May be repeated."""

    def drop(self) -> None:
        """End the connection at once."""

    async def closed(self) -> None:
        """Return when the connection is lost."""

    async def end(self, code: int, reason: str) -> None:
        """Say why, and end the connection. The code is one of WebSockets'."""


class BadStream(Exception):
    """What came is no frame of ours; the connection cannot go on."""


class Stream(asyncio.Protocol):
    """A `Wire` of a Unix socket. *made* is called with it when it is connected."""

    def __init__(self, made: Callable[[Stream], None] | None = None) -> None:
        self._made = made
        self._lost = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._data = bytearray()
        self._take: Take | None = None
        self._room: Callable[[], None] = _nothing
        self._paused = self._handing = self._behind = False

    async def first(self) -> Frame:
        """The first frame; others wait for `begin`. Raises `ConnectionError` where none comes."""
        found: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def take(frame: Frame) -> None:
            self._take = None  # also where there is nothing to pause any more
            self.pause()
            found.set_result(frame)

        self.begin(take, _nothing)
        await asyncio.wait({found, self._lost}, return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise ConnectionError("it ended before its first frame")
        return found.result()

    # A `Wire`

    @property
    def full(self) -> bool:
        # What is for a connection that ends stays where it is.
        return self._behind or self._transport.is_closing()

    def begin(self, take: Take, room: Callable[[], None]) -> None:
        self._take, self._room = take, room
        self.resume()
        self._hand_out()

    def write(self, frame: Frame) -> None:
        if not self._transport.is_closing():
            data = frame.encode() if isinstance(frame, str) else frame
            self._transport.writelines((_HEAD.pack(b"t" if isinstance(frame, str) else b"b", len(data)), data))

    def pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        # A transport that is closing can neither be paused nor resumed, and whoever has room for it may not know yet.
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
            self._hand_out()

    def drop(self) -> None:
        self._transport.abort()

    async def closed(self) -> None:
        await asyncio.wait({self._lost})

    async def end(self, code: int, reason: str) -> None:
        self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._hand_out()

    def pause_writing(self) -> None:
        self._behind = True

    def resume_writing(self) -> None:
        self._behind = False
        self._room()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set_result(None)

    def _hand_out(self) -> None:
        if self._handing:  # whoever took a frame resumes: the loop below goes on
            return
        self._handing = True
        try:
            while self._take is not None and not self._paused and (frame := self._next()) is not None:
                self._take(frame)
        except BadStream:
            self.drop()
        finally:
            self._handing = False

    def _next(self) -> Frame | None:
        """The next frame, where all of it is there. Raises `BadStream`."""
        if len(self._data) < _HEAD.size:
            return None
        kind, size = _HEAD.unpack_from(self._data)
        if kind not in (b"t", b"b") or size > MAX_FRAME:
            raise BadStream(f"a frame of kind {kind!r} and {size} bytes")
        end = _HEAD.size + size
        if len(self._data) < end:
            return None
        data = bytes(memoryview(self._data)[_HEAD.size : end])
        del self._data[:end]
        try:
            return data.decode() if kind == b"t" else data
        except UnicodeDecodeError as error:
            raise BadStream("a text that is none") from error


class RemoteDialogue:
    """A dialogue at the other end of a Unix socket. Made by `connect`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @classmethod
    async def connect(cls, path: Path, owner: str, username: str, scopes: Iterable[str]) -> RemoteDialogue:
        """Raises OSError where nobody listens at *path*."""
        _, stream = await asyncio.get_running_loop().create_unix_connection(Stream, str(path))
        told: dict[str, Any] = {"version": VERSION, "owner": owner, "username": username, "scopes": sorted(scopes)}
        stream.write(orjson.dumps(told).decode())
        return cls(stream)

    async def talk(self, wire: Wire, first: Frame | None = None) -> None:
        """Pass frames to and fro, *first* before all others, until one of the two connections is lost."""
        stream = self._stream
        if first is not None:
            stream.write(first)
        ends = [asyncio.ensure_future(stream.closed()), asyncio.ensure_future(wire.closed())]
        try:
            stream.begin(_into(wire, stream), wire.resume)
            wire.begin(_into(stream, wire), stream.resume)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not ends[1].done():
                await wire.end(1012, "the inferlet host is stopping")
        finally:
            for end in ends:
                end.cancel()
            await stream.end(1000, "")


def _into(there: Wire, here: Wire) -> Take:
    """Writes to *there*, and reads no more from *here* while it is full."""

    def take(frame: Frame) -> None:
        there.write(frame)
        if there.full:
            here.pause()

    return take


def _nothing() -> None:
    """Whoever has not begun has nothing to write."""
