"""Publishes updates at a given rate: as deltas, which are never merged, or as partial output."""

import asyncio
import time
from collections.abc import AsyncIterator

from infsh import BaseApp, BaseAppInput, BaseAppOutput, StreamDelta


class TickInput(BaseAppInput):
    count: int
    rate: float = 20.0
    start: float = 0.0  # seconds since the epoch, so that many tasks begin together


class TickOutput(BaseAppOutput):
    n: int = 0


class TickDelta(StreamDelta):
    response: str = ""


async def ticks(input_data: TickInput) -> AsyncIterator[int]:
    """The numbers from 1 to count, each at its time; late ones follow at once."""
    await asyncio.sleep(max(0.0, input_data.start - time.time()))
    started = time.monotonic()
    for n in range(1, input_data.count + 1):
        late = started + n / input_data.rate - time.monotonic()
        if late > 0:
            await asyncio.sleep(late)
        yield n


class App(BaseApp):
    async def run(self, input_data: TickInput) -> AsyncIterator[TickOutput]:
        async for n in ticks(input_data):
            yield TickOutput(n=n)

    async def deltas(self, input_data: TickInput) -> AsyncIterator[TickOutput]:
        async for _ in ticks(input_data):
            yield TickDelta(response="tick ")
        yield TickOutput(n=input_data.count)
