"""``python -m benchmarks.inferlets.launches``: launches, calls, messages and memory, on the dummy model."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.engine.workers import answer
from benchmarks.inferlets.house import House, dummy


class Measures:
    """What is asked of one process. Times are milliseconds, sizes MiB."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-inferlets-")
        self._house = House(dummy(), Path(self._folder.name))
        for name in ("noop", "echo", "calls"):
            self._house.install(name)

    def ready(self) -> dict[str, Any]:
        return {}

    def first(self) -> dict[str, float]:
        """The first launch of a program whose machine code is on disk, in a sandbox that has not seen it."""
        began = time.perf_counter()
        self._house.run("noop")
        return {"from_disk": (time.perf_counter() - began) * 1000}

    def warm(self, times: int) -> dict[str, float]:
        """Launch to result, one after the other."""
        took = []
        for _ in range(times):
            began = time.perf_counter()
            self._house.run("noop")
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        return {"p50": took[times // 2], "p99": took[times * 99 // 100]}

    def rate(self, times: int, callers: int) -> dict[str, float]:
        """Launches to results a second, *callers* at one time."""
        left = iter(range(times))
        guard = threading.Lock()

        def caller() -> None:
            while True:
                with guard:
                    if next(left, None) is None:
                        return
                self._house.run("noop")

        began = time.perf_counter()
        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"rate": times / (time.perf_counter() - began)}

    def messages(self, times: int) -> dict[str, float]:
        """From the host to a guest and back."""
        instance, seen = self._house.start("echo")
        seen.next()
        took = []
        for number in range(times):
            began = time.perf_counter()
            instance.send(str(number))
            seen.next()
            took.append((time.perf_counter() - began) * 1000)
        instance.send("end")
        self._house.finish(instance, seen)
        return {"p50": statistics.median(took)}

    def calls(self) -> dict[str, float]:
        """What the guest measured, in microseconds."""
        instance, seen = self._house.start("calls")
        instance.send_file(os.urandom(1 << 20))
        told: dict[str, float] = json.loads(self._house.finish(instance, seen))
        return told

    def together(self, count: int) -> dict[str, float]:
        """Private memory of each of *count* instances that wait for a message."""
        before = private()
        running = [self._house.start("echo") for _ in range(count)]
        for _, seen in running:
            seen.next()
        after = private()
        for instance, _ in running:
            instance.send("end")
        for instance, seen in running:
            self._house.finish(instance, seen)
        return {"each": (after - before) / count}

    def growth(self, times: int) -> dict[str, float]:
        """What the process grows by over *times* launches, after as many to begin with as a tenth of it."""
        self.rate(times // 10, 4)
        before, threads = private(), threading.active_count()
        self.rate(times, 4)
        return {"mib": private() - before, "threads": threading.active_count() - threads}


def private() -> float:
    """Memory that is this process's alone, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def main() -> None:
    measures = Measures()
    names = ("ready", "first", "warm", "rate", "messages", "calls", "together", "growth")
    answer({name: getattr(measures, name) for name in names})


if __name__ == "__main__":
    main()
