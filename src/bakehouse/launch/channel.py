"""The server's end of an instance's message socket, and of the pipes behind its descriptors 1 and 2.

Built for many small messages: one read hands on every frame that it brought, and everything that is sent within one
turn of the event loop leaves in one write. Nothing is awaited and nothing locks.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, cast

import orjson

from bakehouse.apphost.messages import CHILD_MESSAGES, MAX_FRAME, Decoder, FrameError, Message

_READ_BYTES = 256 * 1024
_FULL_BYTES = 64 * 1024 * 1024
"""Above this much unsent data the channel counts as full: the child does not read."""

_LINE_BYTES = 64 * 1024
"""A longer line is cut: an app that prints without line ends must not fill our memory."""


def _parse(body: bytes) -> Message:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FrameError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return cast(Message, message)


class Channel:
    """Frames in both directions over *sock*, which it owns.

    ``on_message`` gets each checked message; ``on_close`` is called once, with None at the end of the stream or with
    what was wrong. Neither is called after ``close``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_close: Callable[[str | None], None],
    ) -> None:
        self._loop, self._sock, self._on_message, self._on_close = loop, sock, on_message, on_close
        self._decoder = Decoder(CHILD_MESSAGES, _parse)
        self._out: list[bytes] = []
        self._unsent = b""
        self._out_bytes = 0
        self._closed = False
        self._peer_gone = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def full(self) -> bool:
        """Whether the child has left too much unread; sending more would only use memory."""
        return self._out_bytes > _FULL_BYTES

    def send(self, message: dict[str, Any]) -> None:
        """Send *message* at the end of this turn of the loop; silently dropped when the child is gone.

        Raises ValueError for a message over the frame limit. Values may be ``orjson.Fragment``.
        """
        body = orjson.dumps(message)
        if len(body) > MAX_FRAME:
            raise ValueError(f"the message is {len(body)} bytes long, the limit is {MAX_FRAME}")
        if self._closed or self._peer_gone:
            return
        if not self._out and not self._unsent:
            self._loop.call_soon(self._flush)
        self._out.append(len(body).to_bytes(4, "big"))
        self._out.append(body)
        self._out_bytes += len(body) + 4

    def _flush(self) -> None:
        if self._closed:
            return
        data = self._unsent + b"".join(self._out)
        self._out.clear()
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The child is gone; the reader sees the end of the stream, after what the child still said.
            self._peer_gone, sent = True, len(data)
        waiting = bool(self._unsent)
        self._unsent = data[sent:]
        self._out_bytes = len(self._unsent)
        if self._unsent and not waiting:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        elif waiting and not self._unsent:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        """One bounded read: a child that floods gets its turn and no more."""
        self.read()

    def read(self) -> bool:
        """Read once and hand on what came; whether there may be more."""
        if self._closed:
            return False
        try:
            chunk = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(str(error) if not isinstance(error, ConnectionResetError) else None)
            return False
        if not chunk:
            self._end("the message stream ended inside a frame" if self._decoder.pending else None)
            return False
        self._take(chunk)
        return not self._closed

    def _take(self, chunk: bytes) -> None:
        wrong = None
        try:
            messages = self._decoder.feed(chunk)
        except FrameError as error:
            messages, wrong = error.frames, str(error)
        on_message = self._on_message
        for message in messages:
            on_message(message)
            if self._closed:
                return
        if wrong is not None:
            self._end(wrong)

    def drain(self) -> None:
        """Hand on what the child had sent before it ended (at most what the socket's buffer holds)."""
        while not self._closed and self.read():
            pass

    def _end(self, reason: str | None) -> None:
        if not self._closed:
            self.close()
            self._on_close(reason)

    def close(self) -> None:
        """Stop reading and writing; repeatable."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._out.clear()
            self._unsent = b""


class Pipe:
    """Lines that something in the instance wrote to descriptor 1 or 2. Owns *fd*, the reading end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, on_lines: Callable[[list[str]], None]) -> None:
        self._loop, self._fd, self._on_lines = loop, fd, on_lines
        self._rest = b""
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; whether there may be more."""
        if self._fd < 0:
            return False
        try:
            chunk = os.read(self._fd, _LINE_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        if not chunk:
            self.close()
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._on_lines([line.decode("utf-8", "replace") for line in lines])
        return True

    def drain(self) -> None:
        """Hand on what is in the pipe now, an unfinished line included; bounded, because a writer may go on."""
        for _ in range(16):
            if not self._read():
                break
        if self._rest:
            rest, self._rest = self._rest, b""
            self._on_lines([rest.decode("utf-8", "replace")])

    def close(self) -> None:
        """Stop reading; repeatable."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            if self._rest:
                self._on_lines([self._rest.decode("utf-8", "replace")])
                self._rest = b""
