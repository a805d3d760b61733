"""What the interop suite runs: echo with updates, a file's digest, a slow call, a failing one, a counter."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from infsh import BaseApp, BaseAppInput, BaseAppOutput, File


class EchoInput(BaseAppInput):
    text: str
    steps: int = 3


class EchoOutput(BaseAppOutput):
    text: str
    step: int


class FilesInput(BaseAppInput):
    files: list[File]


class FilesOutput(BaseAppOutput):
    sizes: list[int]
    digests: list[str]
    joined: File


class SlowInput(BaseAppInput):
    seconds: float = 60


class SlowOutput(BaseAppOutput):
    waited: float


class FailInput(BaseAppInput):
    message: str = "the app says no"


class CountInput(BaseAppInput):
    by: int = 1


class CountOutput(BaseAppOutput):
    total: int
    setups: int


class App(BaseApp):
    async def setup(self):
        self.total = 0
        self.setups = getattr(self, "setups", 0) + 1

    async def run(self, input_data: EchoInput) -> AsyncIterator[EchoOutput]:
        for step in range(1, input_data.steps + 1):
            print(f"step {step} of {input_data.steps}")
            self.report_progress(step, input_data.steps)
            yield EchoOutput(text=input_data.text[: step * 4], step=step)
            await asyncio.sleep(0.05)
        yield EchoOutput(text=input_data.text, step=input_data.steps)

    def digest(self, input_data: FilesInput) -> FilesOutput:
        contents = [Path(file.path).read_bytes() for file in input_data.files]
        joined = Path(self.temp_dir) / "joined.bin"
        joined.write_bytes(b"".join(contents))
        return FilesOutput(
            sizes=[len(content) for content in contents],
            digests=[hashlib.sha256(content).hexdigest() for content in contents],
            joined=File(path=str(joined)),
        )

    async def slow(self, input_data: SlowInput) -> SlowOutput:
        print("going to wait")
        await asyncio.sleep(input_data.seconds)
        return SlowOutput(waited=input_data.seconds)

    def fail(self, input_data: FailInput) -> EchoOutput:
        raise ValueError(input_data.message)

    def count(self, input_data: CountInput) -> CountOutput:
        self.total += input_data.by
        return CountOutput(total=self.total, setups=self.setups)

    def letters(self, input_data: EchoInput) -> Iterator[EchoOutput]:
        for step, _ in enumerate(input_data.text, 1):
            yield EchoOutput(text=input_data.text[:step], step=step)
