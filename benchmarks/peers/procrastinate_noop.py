"""procrastinate on PostgreSQL: ``python -m ... schema``, then ``worker``, then ``CALLERS SECONDS``.

A job tells its caller that it ran over a Unix datagram socket, because procrastinate keeps no results; its own
bookkeeping after the job is therefore not in the latency, which favours it.
"""

import asyncio
import json
import os
import socket
import sys
import time
from typing import Any

import procrastinate

from benchmarks.load import summary

CALLBACK = os.environ["BENCH_CALLBACK"]
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES_URL"], max_size=20)
)
teller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@app.task(name="noop", queue="noop")
async def noop(n: int) -> None:
    teller.sendto(str(n).encode(), CALLBACK)


async def load(callers: int, seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    waiting: dict[int, asyncio.Future[None]] = {}
    ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ears.bind(CALLBACK)
    ears.setblocking(False)

    def heard() -> None:
        waiting.pop(int(ears.recv(64))).set_result(None)

    loop.add_reader(ears, heard)
    latencies: list[float] = []
    numbers = iter(range(10**9))

    async def call() -> None:
        number, sent = next(numbers), time.perf_counter()
        waiting[number] = loop.create_future()
        done = waiting[number]
        await noop.defer_async(n=number)
        await asyncio.wait_for(done, 30)
        latencies.append(time.perf_counter() - sent)

    async def caller(deadline: float) -> None:
        while time.perf_counter() < deadline:
            await call()

    async with app.open_async():
        await call()
        latencies.clear()
        started = time.perf_counter()
        await asyncio.gather(*(caller(started + seconds) for _ in range(callers)))
        return summary(latencies, time.perf_counter() - started)


async def prepare() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(queues=["noop"], concurrency=16, fetch_job_polling_interval=0.2)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["schema"]:
            asyncio.run(prepare())
        case ["worker"]:
            asyncio.run(work())
        case [callers, seconds]:
            print(json.dumps(asyncio.run(load(int(callers), float(seconds)))))
