"""Dialogues in another process: their frames over a Unix socket, a connection for each. Imports nothing heavy.

The client's side begins with one line of JSON that says who it is, then both sides send frames: a byte ``t`` or ``b``
for text or bytes, the length as a big-endian 32-bit number, and so many bytes. Who may connect is trusted: it has asked
for the key.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from pathlib import Path

import orjson

VERSION = 1
MAX_FRAME = 16 << 20
"""Bytes; no frame of a dialogue is longer."""
ROOM = 64 * 1024
_HEAD = struct.Struct(">cI")

Frame = str | bytes


class BadStream(Exception):
    """What came is no frame of ours; the connection cannot go on."""


class RemoteDialogue:
    """A dialogue at the other end; as `Dialogue` to whoever feeds it. Made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, path: Path, owner: str, username: str, scopes: Iterable[str]) -> RemoteDialogue:
        """Raises OSError where nobody listens at *path*."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=ROOM)
        told = {"version": VERSION, "owner": owner, "username": username, "scopes": sorted(scopes)}
        writer.write(orjson.dumps(told) + b"\n")
        return cls(reader, writer)

    async def feed(self, frame: Frame) -> None:
        """Send what the client sent; waits while the other end has not taken what came before."""
        if not self._writer.is_closing():
            write_frame(self._writer, frame)
            try:
                await self._writer.drain()
            except ConnectionError:
                return  # `take` tells of the end

    async def take(self) -> list[Frame]:
        """The next frame for the client; none at the end."""
        try:
            return [await read_frame(self._reader)]
        except (asyncio.IncompleteReadError, ConnectionError, BadStream):
            return []

    async def close(self) -> None:
        """The client is gone. May be repeated."""
        self._writer.close()


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame. Raises BadStream, IncompleteReadError at the end."""
    kind, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if kind not in (b"t", b"b") or size > MAX_FRAME:
        raise BadStream(f"a frame of kind {kind!r} and {size} bytes")
    data = await reader.readexactly(size)
    try:
        return data.decode() if kind == b"t" else data
    except UnicodeDecodeError as error:
        raise BadStream("a text that is none") from error


def write_frame(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Send *frame*, with the next drain at the latest."""
    data = frame.encode() if isinstance(frame, str) else frame
    writer.write(_HEAD.pack(b"t" if isinstance(frame, str) else b"b", len(data)))
    writer.write(data)
