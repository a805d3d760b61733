"""One function for each state that a server can be killed in."""

import asyncio
import time
from pathlib import Path

from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File


class Setup(BaseAppSetup):
    delay: float = 0.0
    salt: int = 0


class Input(BaseAppInput):
    n: int
    count: int = 10


class Output(BaseAppOutput):
    double: int
    attempt: int


class FileOutput(BaseAppOutput):
    double: int
    file: File


class App(BaseApp):
    async def setup(self, config: Setup):
        await asyncio.sleep(config.delay)

    async def quick(self, app_input: Input) -> Output:
        return self._answer(app_input)

    async def steps(self, app_input: Input) -> Output:
        for step in range(app_input.count):
            print(f"step {step} of {app_input.n}")
            self.report_progress(step + 1, app_input.count)
            await asyncio.sleep(0.05)
        return self._answer(app_input)

    def stubborn(self, app_input: Input) -> Output:
        time.sleep(0.06 * app_input.count)  # blocks, so that a cancel has to wait
        return self._answer(app_input)

    def big(self, app_input: Input) -> FileOutput:
        path = f"{self.temp_dir}/big-{app_input.n}.bin"
        with Path(path).open("wb") as file:
            for _ in range(96):
                file.write(b"x" * 1024 * 1024)
        return FileOutput(double=2 * app_input.n, file=File(path=path))

    def _answer(self, app_input: Input) -> Output:
        return Output(double=2 * app_input.n, attempt=self.context.metadata.attempt)
