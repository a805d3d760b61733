"""Does nothing, slowly: logs, progress and partial output for every step, and an end when it is cancelled."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

from infsh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class Input(BaseAppInput):
    steps: int = Field(5, ge=1, le=10_000)
    seconds: float = Field(0.2, ge=0, le=600, description="Time that each step takes")
    fail_at: int = Field(0, ge=0, description="Raise an error at this step; 0 never")


class Output(BaseAppOutput):
    done: int
    of: int
    words: list[str]


class App(BaseApp):
    async def setup(self) -> None:
        self.cancels = 0
        print("warming up")

    async def on_cancel(self) -> None:
        self.cancels += 1
        self.logger.warning("asked to stop")

    async def run(self, input_data: Input) -> AsyncIterator[Output]:
        words: list[str] = []
        began = time.monotonic()
        try:
            for step in range(1, input_data.steps + 1):
                await asyncio.sleep(input_data.seconds)
                if step == input_data.fail_at:
                    raise RuntimeError(f"told to fail at step {step}")
                print(f"step {step} of {input_data.steps}")
                if step % 5 == 0:
                    print(f"{step} steps are behind us", file=sys.stderr)
                words.append(f"step-{step}")
                self.report_progress(step, input_data.steps, f"step {step}")
                yield Output(done=step, of=input_data.steps, words=list(words))
        finally:
            self.logger.info("ended after %.1f s with %d steps done", time.monotonic() - began, len(words))
