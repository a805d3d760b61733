"""How fast the store takes writes: ``python benchmarks/store.py [URL] [--seconds S]``.

Each caller runs whole tasks: accept (with its claim), RUNNING, COMPLETED. Three durable operations, five events.
Without a URL it measures SQLite in a new temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from bakehouse.core.ids import new_id
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.store import open_store
from bakehouse.store.base import Store

S = TaskStatus


async def one_task(store: Store, times: list[float]) -> None:
    """Accept, start and finish one task; the seconds of each operation go to *times*."""
    now, task_id = time.time_ns() // 1000, new_id("task")
    task = Task(
        task_id, "app", "owner_bench", "user_bench", task_id, S.SCHEDULED, "app/owner/version/0/0/-", "run",
        '{"text": "hello"}', now, now, attempt=1, lease_holder="holder_bench", last_seq=3, idempotency_key=task_id,
    )  # fmt: skip
    story = [
        Event(i + 1, now, "status", status, i // 2) for i, status in enumerate((S.RECEIVED, S.QUEUED, S.SCHEDULED))
    ]
    began = time.perf_counter()
    await store.accept(task, story)
    accepted = time.perf_counter()
    await store.write(TaskWrite(task_id, 1, (Event(4, now, "status", S.RUNNING, 1),), status=S.RUNNING))
    running = time.perf_counter()
    done = (Event(5, now, "status", S.COMPLETED, 1),)
    await store.write(TaskWrite(task_id, 1, done, status=S.COMPLETED, output='{"text": "HELLO"}'))
    times += [accepted - began, running - accepted, time.perf_counter() - running]


async def measure(store: Store, callers: int, seconds: float) -> None:
    """Print the rate and the latencies of *callers* at once."""
    times: list[float] = []
    began = time.perf_counter()
    cpu = time.process_time()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await one_task(store, times)

    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.perf_counter() - began
    cpu = (time.process_time() - cpu) / len(times)
    cuts = statistics.quantiles(times, n=100)
    p50, p99 = cuts[49] * 1000, cuts[98] * 1000
    print(f"{callers:4d} callers: {len(times) / took:8.0f} ops/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms", end="")
    print(f"  cpu {cpu * 1e6:5.0f} µs/op")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bakehouse-bench-") as directory:
        store = open_store(options.url or f"sqlite:///{Path(directory) / 'bench.db'}")
        await store.open()
        for callers in (1, 16, 64):
            await measure(store, callers, options.seconds)
        faults = await store.check_integrity()
        await store.close()
    print("integrity:", faults or "ok")


if __name__ == "__main__":
    uvloop.run(main())
