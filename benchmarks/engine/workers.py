"""One system per child process, asked in JSON lines. Standard library only: the peers' environments import this too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"

Handler = Callable[..., Any]


class WorkerFailed(RuntimeError):
    """A worker said no, or ended; the message has its last words."""


class Worker:
    """A child that runs ``python -m module arguments`` and answers questions until it is closed."""

    def __init__(self, python: Path, module: str, arguments: list[str], threads: int) -> None:
        # Not left open for long: what a worker printed is only read when it fails.
        self._log = CACHE / "worker.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            )
        self.ready: dict[str, Any] = self._answer()

    def ask(self, question: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([question, arguments]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with status {self.process.wait()}"}
        if isinstance(answer, dict) and "error" in answer:
            words = self._log.read_text(errors="replace")[-2000:]
            raise WorkerFailed(f"{' '.join(map(str, self.process.args))}: {answer['error']}\n{words}")
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def answer(handlers: Mapping[str, Handler]) -> None:
    """The child's side: say what ``ready`` gives, then answer each line of stdin until its end."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print to stdout must not stand between the answers

    def say(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    say(handlers["ready"]())
    for line in sys.stdin:
        question, arguments = json.loads(line)
        try:
            say(handlers[question](**arguments))
        except Exception as error:
            import traceback

            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})


def memory_mib() -> dict[str, float]:
    """Resident memory of this process in MiB: now, at most, and how much of it now are pages of mapped files.

    Those the kernel takes back when it needs them; a folder's weights are mapped while they are read.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    keys = (("now", "VmRSS"), ("peak", "VmHWM"), ("files", "RssFile"))
    return {name: int(status[key].split()[0]) / 1024 for name, key in keys}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
