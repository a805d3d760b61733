"""Serves dialogues to another process; `talk` says how their frames go over the socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson

from bakehouse.inferlets.dialogue.base import Desk, Who
from bakehouse.inferlets.dialogue.dialogue import Dialogue
from bakehouse.inferlets.talk import ROOM, VERSION, BadStream, read_frame, write_frame


class DialogueServer:
    """Serves dialogues over *desk* at *path*, to this user only."""

    def __init__(self, desk: Desk, path: Path) -> None:
        self._desk, self._path = desk, path
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError where the path cannot be bound."""
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._connected, str(self._path), limit=ROOM)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """End all dialogues. May be repeated."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._talk(reader, writer)
        except (BadStream, ConnectionError, asyncio.IncompleteReadError):
            return  # its client is gone
        finally:
            self._open.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialogue = Dialogue(self._desk, _who(await reader.readline()))
        tasks = {asyncio.ensure_future(_feed(reader, dialogue)), asyncio.ensure_future(_send(dialogue, writer))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await dialogue.close()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end


async def _feed(reader: asyncio.StreamReader, dialogue: Dialogue) -> None:
    while True:
        await dialogue.feed(await read_frame(reader))


async def _send(dialogue: Dialogue, writer: asyncio.StreamWriter) -> None:
    while frames := await dialogue.take():
        for frame in frames:
            write_frame(writer, frame)
        await writer.drain()


def _who(line: bytes) -> Who:
    try:
        told: dict[str, Any] = orjson.loads(line)
        if told["version"] != VERSION:
            raise BadStream(f"the client speaks version {told['version']}, this end {VERSION}")
        return Who(str(told["owner"]), str(told["username"]), frozenset(map(str, told["scopes"])))
    except (ValueError, KeyError, TypeError) as error:
        raise BadStream(f"a first line that cannot be read: {error}") from error
