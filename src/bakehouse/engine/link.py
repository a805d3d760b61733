"""One end of the socket between an engine and a client: frames in, frames out, and what happens when one is slow."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from bakehouse.engine.wire import Frame, FrameReader, WireError

#: Unsent bytes above which senders of streams wait.
HIGH_WATER = 1 << 20


class Link(asyncio.Protocol):
    """Frames over one connection.

    ``on_frame`` gets each frame, ``on_lost`` is called once at the end with what was wrong, or an empty text. A peer
    that takes nothing for *patience* seconds while more than `HIGH_WATER` waits for it is cut off; while it is behind,
    nothing more is read from it. ``farewell`` makes the last frame, of the reason why this end closes.
    """

    def __init__(
        self,
        on_frame: Callable[[Link, Frame], None],
        on_lost: Callable[[Link, str], None],
        patience: float = 60.0,
        farewell: Callable[[str], bytes] | None = None,
    ) -> None:
        self._farewell = farewell
        self._on_frame, self._on_lost, self._patience = on_frame, on_lost, patience
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._on_frame(self, frame)
        except WireError as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        if self._watch is not None:
            self._watch.cancel()
        self._on_lost(self, self._reason or (str(exc) if exc else ""))

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def peer_uid(self) -> int | None:
        """The user at the other end of a Unix socket, or None where the system does not tell."""
        sock: Any = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "SO_PEERCRED"):
            return None
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)

    @property
    def behind(self) -> bool:
        """Whether the peer has left much unread."""
        return not self._writable.is_set()

    async def writable(self) -> None:
        """Wait until the peer has caught up, or is gone."""
        await self._writable.wait()

    def send(self, frame: bytes) -> None:
        """Send a frame; nothing happens when the peer is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def close(self, reason: str = "") -> None:
        """Send what waits, then end."""
        if self.open and self._transport is not None:
            self._reason = reason
            if reason and self._farewell is not None:
                self._transport.write(self._farewell(reason))
            self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._transport is not None:
            self._transport.pause_reading()
            self._watch_progress(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._writable.set()
        if self._watch is not None:
            self._watch.cancel()
        if self.open and self._transport is not None:
            self._transport.resume_reading()

    def _watch_progress(self, unsent: int) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self._patience, self._check_progress, unsent)

    def _check_progress(self, unsent_before: int) -> None:
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent >= unsent_before:
            self._reason = f"it took nothing for {self._patience:g} s"
            self._transport.abort()
        else:
            self._watch_progress(unsent)
