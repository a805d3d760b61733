"""What goes to a client: answers first, then what its processes sent, taken from them when the client has room.

Only answers are queued here. A client that reads slowly leaves events with their process, which keeps the newest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bakehouse.inferlets.dialogue.frames import Frame

#: Events of one process before the next one has its turn, and frames of one answer to `take`; their characters. What
#: was taken and cannot be sent is lost with the connection, but for the last mebibyte that its process keeps.
TURN, TURN_LENGTH = 64, 256 << 10
#: Answers that may wait before no more requests are read, and their characters.
MOST, MOST_LENGTH = 1024, 32 << 20


class Source(Protocol):
    """Where events come from: one process, as this client listens to it."""

    def frames(self) -> list[Frame]:
        """The frames of the next event, in order; none where there is no event now. Never blocks."""


class Outgoing:
    """Of one event loop; `ring` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answers: deque[Frame] = deque()
        self._length = 0
        self._rung: deque[Source] = deque()
        self._due: dict[Source, None] = {}
        self._waking = False
        self._news: Callable[[], None] = _nobody
        self._room = asyncio.Event()
        self._room.set()

    def listen(self, news: Callable[[], None]) -> None:
        """From now on *news* is called, by the event loop's thread, when there is something to `take`."""
        self._news = news

    @property
    def crowded(self) -> bool:
        """Whether so many answers wait to be sent that no more requests are to be read."""
        return not self._room.is_set()

    def answer(self, *frames: Frame) -> None:
        """Put *frames* in line, together."""
        self._answers.extend(frames)
        self._length += sum(map(len, frames))
        if len(self._answers) >= MOST or self._length >= MOST_LENGTH:
            self._room.clear()
        self._news()

    def post(self, frame: Frame) -> None:
        """`answer`, from any thread."""
        # Where the event loop is closed, nobody is left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.answer, frame)

    async def room(self) -> None:
        """Wait while too many answers wait to be sent."""
        await self._room.wait()

    def bell(self, source: Source) -> Callable[[], None]:
        """To be called, from any thread, when *source* has news."""

        def ring() -> None:
            self._rung.append(source)
            if not self._waking:
                self._waking = True
                # Where the event loop is closed, nobody is left to tell.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._wake)

        return ring

    def _wake(self) -> None:
        self._waking = False
        while self._rung:
            self._due[self._rung.popleft()] = None
        self._news()

    def take(self) -> list[Frame]:
        """The next frames to send, some at a time; none where there are none now."""
        frames = list(self._answers)
        self._answers.clear()
        self._length = 0
        self._room.set()
        length = 0
        for source in list(self._due):
            if len(frames) >= TURN or length >= TURN_LENGTH:
                break
            length += self._one_turn(source, frames)
        return frames

    def _one_turn(self, source: Source, frames: list[Frame]) -> int:
        """Its next events onto *frames*; how long they are."""
        del self._due[source]
        length = 0
        for _ in range(TURN):
            found = source.frames()
            if not found:
                return length
            frames += found
            length += sum(map(len, found))
            if length >= TURN_LENGTH:
                break
        self._due[source] = None  # it may have more: at the end of the line
        return length

    def close(self) -> None:
        self._news = _nobody
        self._room.set()


def _nobody() -> None:
    """Listens."""
