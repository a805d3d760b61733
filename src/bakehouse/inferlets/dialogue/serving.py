"""Serves dialogues to another process; `talk` says how their frames go over the socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson

from bakehouse.inferlets.dialogue.base import Desk, Who
from bakehouse.inferlets.dialogue.conversation import LocalDialogue
from bakehouse.inferlets.talk import VERSION, BadStream, Frame, Stream


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
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: Stream(self._connected), str(self._path))
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

    def _connected(self, stream: Stream) -> None:
        task = asyncio.ensure_future(self._talk(stream))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _talk(self, stream: Stream) -> None:
        try:
            await LocalDialogue(self._desk, _who(await stream.first())).talk(stream)
        except (BadStream, ConnectionError):
            return  # its client is gone
        finally:
            await stream.end(1000, "")


def _who(frame: Frame) -> Who:
    try:
        told: dict[str, Any] = orjson.loads(frame)
        if told["version"] != VERSION:
            raise BadStream(f"the client speaks version {told['version']}, this end {VERSION}")
        return Who(str(told["owner"]), str(told["username"]), frozenset(map(str, told["scopes"])))
    except (ValueError, KeyError, TypeError) as error:
        raise BadStream(f"a first frame that cannot be read: {error}") from error
