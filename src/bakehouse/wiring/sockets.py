"""The WebSockets' protocol of uvicorn, with three changes.

A dialogue gets its frames from the socket's own callbacks, and writes into the socket. uvicorn's way is a queue and a
task on either side of the application, and the socket taken off the event loop and put back for each frame; together
that was a fifth of the time of a message to a program and back (measured).

Who reads or answers nothing holds nobody up for long. And who has not said who it is cannot send much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from bakehouse.api.inferlets import WIRE, bearer
from bakehouse.inferlets.talk import Frame, Take

#: Bytes of the first frame of a client whose header names no key.
MAX_HELLO = 64 << 10
#: Seconds for a client to read what was written before the last frame; then it is not told why it ends.
END_SECONDS = 1.0


class DirectProtocol(WebSocketsSansIOProtocol):
    """uvicorn's. An application finds it as a `Wire` among the extensions of its scope, once it has accepted."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._take: Take | None = None
        self._room: Callable[[], None] | None = None
        #: What came while no frames were to be read.
        self._held: deque[Frame] = deque()
        self._parts = bytearray()
        self._paused = self._handing = self._ending = False

    async def run_asgi(self) -> None:
        self.scope["extensions"][WIRE] = self  # type: ignore[assignment]
        await super().run_asgi()

    # A `Wire`

    @property
    def full(self) -> bool:
        # What is for a connection that ends stays where it is, for the client's next one.
        return self._ending or self.close_sent or not self.writable.is_set() or self.transport.is_closing()

    def begin(self, take: Take, room: Callable[[], None]) -> None:
        self._take, self._room = take, room
        for event in [self.queue.get_nowait() for _ in range(self.queue.qsize())]:
            if event["type"] == "websocket.receive":
                text = event.get("text")
                self._held.append(text if text is not None else event.get("bytes") or b"")
            else:
                self.queue.put_nowait(event)
        self._hand_out()
        if self.read_paused and not self._paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def write(self, frame: Frame) -> None:
        if self._ending or self.disconnected or self.close_sent:
            return
        try:
            if isinstance(frame, str):
                self.conn.send_text(frame.encode())
            else:
                self.conn.send_binary(frame)
        except InvalidState:
            return  # the client is closing it
        self.transport.write(b"".join(self.conn.data_to_send()))

    def pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        # A transport that is closing can neither be paused nor resumed, and whoever has room for it may not know yet.
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self._hand_out()
            if not self._paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def drop(self) -> None:
        self.transport.abort()

    async def closed(self) -> None:
        while (await self.queue.get())["type"] != "websocket.disconnect":
            pass

    async def end(self, code: int, reason: str) -> None:
        if self._ending:
            return
        self._ending = True
        self._take, self._room = _ignore, None
        self.resume()  # the client's answer to the last frame is to be read
        try:
            await asyncio.wait_for(self.writable.wait(), END_SECONDS)
        except TimeoutError:
            self.drop()
        if not (self.close_sent or self.transport.is_closing()):
            await self.send({"type": "websocket.close", "code": code, "reason": reason})

    # What uvicorn calls

    def handle_cont(self, event: Any) -> None:
        """One more part of a message. Not a list of parts: many small ones would take a multiple of their bytes."""
        if not self._parts:
            self._parts += self.frames[0]
        self._parts += event.data
        if event.fin:
            self.frames, self._parts = [bytes(self._parts)], bytearray()
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """A message of the client is whole."""
        frame = None if self._take is None else self._whole()
        if frame is None:
            super().send_receive_event_to_app()
        elif not self.close_sent:
            self.frames = []
            self._held.append(frame)
            self._hand_out()

    def keepalive_timeout(self) -> None:
        """The client has not answered: it may be gone, and would be attached to its processes for many minutes."""
        super().keepalive_timeout()
        self.loop.call_later(END_SECONDS, self.drop)  # what it does not read is not waited for

    def shutdown(self) -> None:
        """The server stops."""
        if self.transport.is_closing():
            self.drop()  # its client has said its farewell, and reads nothing; uvicorn would raise
        else:
            super().shutdown()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._room is not None:
            self._room()

    def _whole(self) -> Frame | None:
        """The message; None for a text that is none, which is uvicorn's to refuse."""
        (data,) = self.frames
        if self.curr_msg_data_type == "bytes":
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None

    def _hand_out(self) -> None:
        if self._handing or self._take is None:  # whoever takes a frame resumes: the loop below goes on
            return
        self._handing = True
        try:
            while self._held and not self._paused:
                self._take(self._held.popleft())
        finally:
            self._handing = False


class GreetingProtocol(DirectProtocol):
    """Frames may be long once the application has accepted a key, or has begun to talk."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.max_message_size = MAX_HELLO

    async def send(self, message: Any) -> None:
        """The application's."""
        if message["type"] == "websocket.accept" and bearer(Headers(raw=list(self.scope["headers"]))):
            self._trust()
        await super().send(message)

    def begin(self, take: Take, room: Callable[[], None]) -> None:
        self._trust()
        super().begin(take, room)

    def _trust(self) -> None:
        self.conn.max_message_size = self.config.ws_max_size


def _ignore(frame: Frame) -> None:
    """What a client sends while its connection ends."""
