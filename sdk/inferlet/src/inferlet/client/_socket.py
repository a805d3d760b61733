"""A WebSocket that hands frames over as they come, and sends at once what nothing is in the way of.

The library's own way is a queue that a task reads, which costs each frame a turn of the event loop. Here whoever waits
for an answer is woken by its arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class DirectConnection(ClientConnection):
    """Until `deliver` is called, frames wait. Frames are not to be received in any other way."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._call: Callable[[str | bytes], None] | None = None
        self._early: list[str | bytes] = []
        self._parts: list[bytes] = []
        self._is_text = False

    def deliver(self, call: Callable[[str | bytes], None]) -> None:
        """From now on *call* gets each frame; it must neither block nor raise."""
        self._call = call
        early, self._early = self._early, []
        for frame in early:
            call(frame)

    def write(self, text: str) -> bool:
        """Send it now. False where `send` is to be used instead: it waits for room, or says what is wrong."""
        if self.paused or self.protocol.state is not State.OPEN or self.transport.is_closing():
            return False
        self.protocol.send_text(text.encode())
        self.send_data()
        return True

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode in _DATA:
            self._gather(event)
        else:
            super().process_event(event)

    def _gather(self, part: Frame) -> None:
        """Put the parts of a message together; most have one."""
        if part.opcode is not Opcode.CONT:
            self._is_text = part.opcode is Opcode.TEXT
        if part.fin and not self._parts:
            whole = bytes(part.data)
        else:
            self._parts.append(bytes(part.data))
            if not part.fin:
                return
            whole, self._parts = b"".join(self._parts), []
        # Text that is no UTF-8 is for the frames' reader to refuse, as any other text that is no frame.
        frame = whole.decode("utf-8", "replace") if self._is_text else whole
        if self._call is None:
            self._early.append(frame)
        else:
            self._call(frame)
