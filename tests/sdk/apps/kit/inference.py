"""What the client's tests run on a real server."""

import asyncio
from pathlib import Path

from infsh import BaseApp, BaseAppInput, BaseAppOutput, File


class TickInput(BaseAppInput):
    ticks: int = 3
    pause: float = 0.01


class SizeInput(BaseAppInput):
    file: File


class Number(BaseAppOutput):
    value: int


class Nothing(BaseAppInput):
    pass


class App(BaseApp):
    async def setup(self):
        self.count = 0

    async def tick(self, app_input: TickInput):
        for number in range(app_input.ticks):
            print(f"tick {number}")
            self.report_progress(number + 1, app_input.ticks)
            await asyncio.sleep(app_input.pause)
        yield Number(value=app_input.ticks)

    async def size(self, app_input: SizeInput) -> Number:
        return Number(value=Path(app_input.file.path).stat().st_size)

    async def increment(self, app_input: Nothing) -> Number:
        self.count += 1
        return Number(value=self.count)

    async def fail(self, app_input: Nothing) -> Number:
        raise RuntimeError("out of paper")
