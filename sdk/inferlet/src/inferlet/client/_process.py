"""One process of a server, as its client sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from inferlet.client._events import Ended, Event
from inferlet.errors import HostError

if TYPE_CHECKING:
    from inferlet.client._connection import Connection


class Process:
    """Made by `Client.launch` and `Client.attach`. Iterate to get its events; the last one is `Ended`.

    What is not read waits here, so that `result`, `signal` and the like work whether anybody reads the events or not.
    ``seq`` is the number of the last event that was read: attach after it to go on from there.
    """

    def __init__(self, connection: Connection, process_id: str, program: str, forget: Callable[[str], None]) -> None:
        self.id = process_id
        self.program = program
        self.seq: int = 0
        self._connection = connection
        self._forget = forget
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._ended: Ended | None = None
        self._gone: HostError | None = None

    async def signal(self, text: str) -> None:
        """Send *text* to the program's ``session.receive``. Returns when it is in the program's queue.

        Raises `LimitExceeded` when the queue is full or the text too long, `NotFound` when the process has ended.
        """
        await self._connection.request("signal", process=self.id, text=text)

    async def send_file(self, data: bytes) -> None:
        """The same for ``session.receive_file``."""
        await self._connection.request("file", data, process=self.id)

    async def terminate(self) -> None:
        """End it. Its `Ended` follows."""
        await self._connection.request("terminate", process=self.id)

    async def detach(self) -> None:
        """Leave it to itself; what it sends is kept for the next client that attaches."""
        await self._connection.request("detach", process=self.id)
        self._forget(self.id)
        self._leave(HostError("detached from this process", "detached"))

    async def result(self) -> str:
        """What the program returned, when it has ended. Raises `ProgramFailed`. Events stay to be read."""
        while self._ended is None:
            if self._gone is not None:
                raise self._gone
            await self._wait()
        if self._ended.error is not None:
            raise self._ended.error
        return self._ended.result

    async def next_event(self) -> Event:
        """The next event. Raises `StopAsyncIteration` after the last one."""
        while not self._events:
            if self._ended is not None:
                raise StopAsyncIteration
            if self._gone is not None:
                raise self._gone
            await self._wait()
        event = self._events.popleft()
        self.seq = event.seq
        return event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self.next_event()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    # Called by the client

    def _take(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Ended):
            self._ended = event
        self._news.set()

    def _leave(self, reason: HostError) -> None:
        self._gone = self._gone or reason
        self._news.set()
