"""Everything that an app can do wrong, one function each."""

import asyncio
import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from infsh import BaseApp, BaseAppInput, BaseAppOutput, File


class Input(BaseAppInput):
    n: int = 0


class Output(BaseAppOutput):
    value: Any = None


class FileOutput(BaseAppOutput):
    file: File


class App(BaseApp):
    async def fine(self, app_input: Input) -> Output:
        return Output(value=app_input.n)

    async def raises(self, app_input: Input) -> Output:
        raise ValueError("this went wrong on purpose")

    def exits(self, app_input: Input) -> Output:
        sys.exit(3)

    def os_exits(self, app_input: Input) -> Output:
        os._exit(7)

    def segfaults(self, app_input: Input) -> Output:
        return Output(value=ctypes.string_at(0))

    def kills_itself(self, app_input: Input) -> Output:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
        return Output()

    def leaves_children(self, app_input: Input) -> Output:
        marker = f"{app_input.n}"
        for detached in (False, True):
            subprocess.Popen(["sleep", marker], start_new_session=detached)
        return Output(value="left two")

    def leaves_children_and_dies(self, app_input: Input) -> Output:
        self.leaves_children(app_input)
        os._exit(1)

    def prints_100_mb(self, app_input: Input) -> Output:
        line = "x" * 1023
        for _ in range(100 * 1024):
            print(line)
        return Output(value="printed")

    def garbage_on_the_socket(self, app_input: Input) -> Output:
        for descriptor in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, b"\xff" * 64)
            except OSError:
                continue
        time.sleep(60)
        return Output()

    def garbage_on_the_pipes(self, app_input: Input) -> Output:
        for descriptor in (1, 2):
            os.write(descriptor, bytes(range(256)) * 64)
        return Output(value="written")

    def not_json(self, app_input: Input) -> Output:
        return Output(value=object())

    def not_a_number(self, app_input: Input) -> Output:
        return Output(value=float("nan"))

    def missing_file(self, app_input: Input) -> FileOutput:
        return FileOutput(file=File(path="/nowhere/at-all.png"))

    async def never_returns(self, app_input: Input) -> Output:
        print("waiting", flush=True)
        await asyncio.Event().wait()
        return Output()

    def never_listens(self, app_input: Input) -> Output:
        print("busy", flush=True)
        while True:
            time.sleep(0.1)

    def eats_memory(self, app_input: Input) -> Output:
        held = []
        while True:
            held.append(bytearray(os.urandom(1024)) * (16 * 1024))
            time.sleep(0.01)
