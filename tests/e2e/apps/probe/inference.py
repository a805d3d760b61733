"""One function for each thing that a task can do. What happens outside a call is written to the shared cache file."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File


class Setup(BaseAppSetup):
    colour: str = "none"
    delay: float = 0.0


class Input(BaseAppInput):
    n: int = 0
    size: int = 0
    text: str = ""


class Output(BaseAppOutput):
    value: Any = None
    instance: str = ""
    setups: int = 0


class FileInput(BaseAppInput):
    file: File
    more: File | None = None


class FileOutput(BaseAppOutput):
    file: File
    where: str = ""


class App(BaseApp):
    async def setup(self, config: Setup):
        print(f"setting up {config.colour}")
        self.colour = config.colour
        self.instance = uuid.uuid4().hex
        self.setups = getattr(self, "setups", 0) + 1
        self.count = 0
        self.told = threading.Event()
        await asyncio.sleep(config.delay)

    def answer(self, value=None):
        return Output(value=value, instance=self.instance, setups=self.setups)

    async def echo(self, app_input: Input) -> Output:
        return self.answer(app_input.text or self.colour)

    def blocking(self, app_input: Input) -> Output:
        return self.answer(threading.current_thread() is threading.main_thread())

    async def count_up(self, app_input: Input) -> Output:
        self.count += 1
        return self.answer(self.count)

    async def generates(self, app_input: Input) -> Output:
        for step in range(app_input.n):
            yield self.answer(step)
            await asyncio.sleep(0.03)

    def generates_too(self, app_input: Input) -> Output:
        for step in range(app_input.n):
            yield self.answer(step)
            time.sleep(0.03)

    def prints(self, app_input: Input) -> Output:
        for step in range(app_input.n):
            print(f"{step} stdout")
            print(f"{step} stderr", file=sys.stderr)
            logging.getLogger("somewhere").warning("%s logging", step)
            self.logger.info("%s logger", step)
        subprocess.run(["echo", "from a child process"], check=True)
        return self.answer()

    async def waits(self, app_input: Input) -> Output:
        """Runs until somebody cancels it; says so when it is told."""
        print("waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print(f"the coroutine was cancelled, requested: {self.context.cancel_requested}")
            raise
        return self.answer()

    def works(self, app_input: Input) -> Output:
        """Like ``waits``, but sync: it looks at the flag, and ``on_cancel`` wakes it."""
        print("working")
        self.told.wait(60)
        print(f"told to stop, requested: {self.context.cancel_requested}")
        return self.answer("stopped early")

    def on_cancel(self):
        print("on_cancel was called")
        self.told.set()

    def deaf(self, app_input: Input) -> Output:
        """Hears nothing for a minute."""
        print("not listening")
        time.sleep(60)
        return self.answer()

    async def sleeps(self, app_input: Input) -> Output:
        print("asleep")
        for step in range(app_input.n):
            self.report_progress(step, app_input.n, f"step {step}")
            print(f"line {step}")
            await asyncio.sleep(0.02)
        return self.answer(app_input.n)

    async def floods(self, app_input: Input) -> Output:
        """``n`` partial outputs of ``size`` bytes with a log line each, slowly enough that none is left out."""
        for step in range(app_input.n):
            print(f"partial {step}")
            yield self.answer(f"{step:06d}" + "x" * app_input.size)
            await asyncio.sleep(0.02)
        yield self.answer("flooded")

    async def chatters(self, app_input: Input) -> Output:
        """``n`` megabytes of lines of ``size`` characters."""
        for step in range(app_input.n * 1_000_000 // app_input.size):
            print(f"line {step:06d} " + "x" * app_input.size)
            await asyncio.sleep(0)
        return self.answer()

    async def surroundings(self, app_input: Input) -> Output:
        descriptors = {}
        for entry in Path("/proc/self/fd").iterdir():
            try:
                descriptors[entry.name] = str(entry.readlink())
            except OSError:
                continue  # the one that the listing itself has open
        context = {name: getattr(self.context, name) for name in ("task_id", "app_id", "owner_id", "attempt")}
        return self.answer(
            {"env": dict(os.environ), "fds": descriptors, "cwd": str(Path.cwd()), "context": context,
             "temp": str(self.temp_dir)}
        )  # fmt: skip

    async def reads(self, app_input: FileInput) -> Output:
        paths = [str(f.path) for f in (app_input.file, app_input.more) if f is not None]
        stats = [(path, Path(path).stat().st_ino, Path(path).read_text()) for path in paths]
        return self.answer(stats)

    async def writes(self, app_input: Input) -> FileOutput:
        path = Path(self.temp_dir) / "Grüße & more.txt"
        path.write_text(app_input.text)
        return FileOutput(file=File(path=str(path)), where=str(path))
