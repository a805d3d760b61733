"""Celery with Redis as broker and result backend. ``python -m ... CALLERS SECONDS`` is the load.

*CALLERS* is a window: so many calls are outstanding at any time, from one client process; a batch of one window is
`CALLERS` 0. The worker is ``celery -A benchmarks.peers.celery_noop worker``.
"""

import json
import os
import sys
import time
from collections import deque
from typing import Any

from celery import Celery, group

from benchmarks.load import summary

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
BATCH = 2000
app = Celery("noop", broker=URL, backend=URL)
app.conf.update(worker_prefetch_multiplier=64, task_acks_late=False, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(n: int) -> int:
    return n


def window(callers: int, seconds: float) -> dict[str, Any]:
    noop.delay(0).get(timeout=30)
    latencies: list[float] = []
    waiting = deque((time.perf_counter(), noop.delay(n)) for n in range(callers))
    started = time.perf_counter()
    while waiting:
        sent, result = waiting.popleft()
        result.get(timeout=30)
        now = time.perf_counter()
        latencies.append(now - sent)
        result.forget()
        if now - started < seconds:
            waiting.append((time.perf_counter(), noop.delay(len(latencies))))
    return summary(latencies, time.perf_counter() - started)


def batch() -> dict[str, Any]:
    noop.delay(0).get(timeout=30)
    started = time.perf_counter()
    group(noop.s(n) for n in range(BATCH)).apply_async().get(timeout=120)
    seconds = time.perf_counter() - started
    return summary([seconds] * BATCH, seconds)


if __name__ == "__main__":
    callers = int(sys.argv[1])
    print(json.dumps(window(callers, float(sys.argv[2])) if callers else batch()))
