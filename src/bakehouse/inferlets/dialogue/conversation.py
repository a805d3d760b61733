"""A dialogue over a connection: frames of the client go in, and what is for it goes out, as far as it has room."""

from __future__ import annotations

import logging
from collections import deque

from bakehouse.inferlets.dialogue.base import Desk, Who
from bakehouse.inferlets.dialogue.dialogue import Dialogue
from bakehouse.inferlets.talk import Frame, Wire

log = logging.getLogger(__name__)


class LocalDialogue:
    """A dialogue in this process. For one connection."""

    def __init__(self, desk: Desk, who: Who) -> None:
        self._desk, self._who = desk, who

    async def talk(self, wire: Wire, first: Frame | None = None) -> None:
        """Until the connection is lost. The client's frame *first* was read before."""
        dialogue = Dialogue(self._desk, self._who)
        talk = _Conversation(dialogue, wire)
        try:
            dialogue.listen(talk.send)
            if first is not None:
                talk.take(first)
            wire.begin(talk.take, talk.send)
            await wire.closed()
        finally:
            await dialogue.close()


class _Conversation:
    def __init__(self, dialogue: Dialogue, wire: Wire) -> None:
        self._dialogue, self._wire = dialogue, wire
        self._frames: deque[Frame] = deque()

    def take(self, frame: Frame) -> None:
        """One frame of the client. While too many answers wait for it, no more are read."""
        self._dialogue.feed(frame)
        if self._dialogue.crowded:
            self._wire.pause()

    def send(self) -> None:
        """There is something for the client, or room for it."""
        try:
            while not self._wire.full and (frame := self._next()) is not None:
                self._wire.write(frame)
        except Exception:
            # Nobody is above this. Without a connection the client notices, and can come back.
            log.exception("what was for a client cannot be sent")
            self._wire.drop()
            return
        if not self._dialogue.crowded:
            self._wire.resume()

    def _next(self) -> Frame | None:
        if not self._frames:
            self._frames.extend(self._dialogue.take())
        return self._frames.popleft() if self._frames else None
