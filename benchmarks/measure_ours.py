"""Our server: no-op tasks by number of callers, fan-out of one task, many tasks with a stream each, memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure_peers import Figures, http_load
from benchmarks.processes import ROOT, Memory, cpu_seconds, peers_python
from tests.support.server import Server

APPS = Path(__file__).parent / "apps"
NOOP, TICKER = "local/bench-noop", "local/bench-ticker"
COMPLETED = '"status":10'
# Folders of a namespace package, whose own name py-spy leaves out.
TELEMETRY = {"_logs", "context", "metrics", "trace"}
STANDARD = {"asyncio", "concurrent", "email", "json", "urllib", "logging", "sqlite", "http", "importlib"}


class Ours:
    """A running server with the bench apps deployed."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.server = Server(folder / "home", database=database)

    def __enter__(self) -> Ours:
        self.server.start()
        try:
            for name in ("noop", "ticker"):
                self.server.deploy(APPS / name)
            self.server.run(NOOP, {"n": 1})
        except BaseException:
            self.server.kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stop()

    def tasks(self, callers: int, seconds: float) -> Figures:
        """No-op tasks, each answered with the finished task in the same response."""
        headers = {"Authorization": f"Bearer {self.server.key}", "Prefer": "wait=30"}
        body = json.dumps({"app": NOOP, "input": {"n": 1}})
        url = f"{self.server.base_url}/apps/run"
        before = cpu_seconds(self.server.pid)
        with Memory(self.server.pid) as memory:
            figures = http_load(url, body, callers, seconds, COMPLETED, headers)
        after = cpu_seconds(self.server.pid)
        server, instances = ((b - a) * 1000 / max(figures["count"], 1) for a, b in zip(before, after, strict=True))
        cpu = {"server_cpu_ms": round(server, 3), "instance_cpu_ms": round(instances, 3)}
        return {**figures, **cpu, "memory": memory.series}

    def _start(self, function: str, count: int, rate: float, start: float) -> str:
        request = {"app": TICKER, "function": function, "input": {"count": count, "rate": rate, "start": start}}
        return str(self.server.data(self.server.api.post("/apps/run", json=request))["id"])

    def fan_out(self, streams: int, rate: float, seconds: float) -> Figures:
        """One task that publishes *rate* deltas a second, read by *streams* readers at once."""
        count = int(rate * seconds)
        delay = 2.0 + streams / 500  # the readers must stand before the first tick
        task_id = self._start("deltas", count, rate, time.time() + delay)
        figures = self._read([task_id] * streams, '"delta"', timeout=seconds + delay + 60)
        published = count * streams
        return {**figures, "published": published, "share": round(figures["lines"] / published, 3)}

    def crowd(self, tasks: int, rate: float, seconds: float) -> Figures:
        """*tasks* running tasks with one stream each and *rate* updates a second per task."""
        count, start = int(rate * seconds), time.time() + 3.0 + tasks / 80
        ids = [self._start("run", count, rate, start) for _ in range(tasks)]
        figures = self._read(ids, '"partial_output":{', timeout=seconds * 3 + 120)
        return {**figures, "published": count * tasks, "share": round(figures["lines"] / (count * tasks), 3)}

    def _read(self, task_ids: list[str], mark: str, timeout: float) -> Figures:
        address = httpx.URL(self.server.base_url)
        spec = {"host": address.host, "port": address.port, "key": self.server.key, "timeout": timeout, "mark": mark}
        command = [sys.executable, "-m", "benchmarks.readers"]
        request = json.dumps({**spec, "tasks": task_ids})
        with Memory(self.server.pid) as memory:
            done = subprocess.run(command, cwd=ROOT, input=request, capture_output=True, text=True, check=True)
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**figures, "memory": memory.series}

    def profile(self, seconds: float, output: Path) -> list[tuple[str, float, str]]:
        """Sample the server with py-spy while 64 callers drive it; see `hottest` for what comes back."""
        spy = str(peers_python().with_name("py-spy"))
        command = [spy, "record", "--pid", str(self.server.pid), "--format", "raw", "--output", str(output)]
        options = ["--duration", str(int(seconds)), "--rate", "250", "--gil"]
        recorder = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.tasks(64, seconds + 2)
        _, complaint = recorder.communicate(timeout=seconds + 60)
        if recorder.returncode:
            raise RuntimeError(f"py-spy failed: {complaint.decode(errors='replace')}")
        return hottest(output.read_text())


def hottest(stacks: str, most: int = 25) -> list[tuple[str, float, str]]:
    """(kind, share, name) of py-spy's raw format, ``frame;frame;frame count`` lines; the largest of each kind first.

    Kind ``room``: the innermost package that is not the standard library; ``function``: own time.
    """
    rooms: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in stacks.splitlines():
        text, _, count = line.rpartition(" ")
        frames = text.split(";")
        rooms[next(filter(None, map(package, reversed(frames))), "standard library")] += int(count)
        functions[frames[-1]] += int(count)
    total = sum(rooms.values()) or 1
    counted = [("room", rooms), ("function", functions)]
    return [(kind, round(n / total, 4), name) for kind, counts in counted for name, n in counts.most_common(most)]


def package(frame: str) -> str:
    """``bakehouse.store`` or ``fastapi`` of a frame ``name (path/file.py:line)``; empty for the standard library."""
    match = re.search(r"\((?:.*site-packages/|.*/src/)?([a-z_]+)/(?:([a-z_]+)/)?", frame)
    if match is None or match[1] in STANDARD:
        return ""
    if match[1] in TELEMETRY:
        return "opentelemetry"
    return f"bakehouse.{match[2] or 'core'}" if match[1] == "bakehouse" else match[1]
