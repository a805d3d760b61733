"""``python -m benchmarks.inferlets``: what inferlets cost and what they gain; tables go to ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report as common
from benchmarks.engine import setup
from benchmarks.engine.workers import CACHE, Worker
from benchmarks.inferlets import report, sockets
from benchmarks.inferlets.agents.work.workloads import WORKLOADS

console = Console(stderr=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inferlets", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything on the dummy; nothing is written")
    parser.add_argument("--agents", type=int, help="how many at one time, in place of each workload's own number")
    parser.add_argument("--rounds", type=int, default=1, help="of the agentic work with the prefix cache")
    parser.add_argument("--dtype", default="int8", help="of the model for the agentic work")
    parser.add_argument("--kv-tokens", type=int, default=32_768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("costs", "agents"), help="one half; nothing is written")
    parser.add_argument("--work", nargs="+", choices=WORKLOADS, help="some of the agentic work; nothing is written")
    chosen = parser.parse_args()
    if chosen.work:
        chosen.only = "agents"
    return chosen


def costs(run: dict[str, Any], chosen: argparse.Namespace) -> None:
    """Launches, calls, messages, memory."""
    few = chosen.quick
    asked: list[tuple[str, dict[str, int]]] = [
        ("first", {}),
        ("warm", {"times": 50 if few else 1000}),
        ("rate", {"times": 100 if few else 2000, "callers": 4}),
        ("messages", {"times": 100 if few else 2000}),
        ("calls", {}),
        ("together", {"count": 20 if few else 500}),
        ("growth", {"times": 200 if few else 10_000}),
    ]
    worker = Worker(Path(sys.executable), "benchmarks.inferlets.launches", [], chosen.threads)
    try:
        for name, arguments in asked:
            console.log(name)
            run["figures"][name] = worker.ask(name, **arguments)
    finally:
        worker.close()
    console.log("over the WebSocket")
    run["figures"]["sockets"] = sockets.run(50 if few else 500)


def agentic(run: dict[str, Any], chosen: argparse.Namespace, source: str) -> None:
    """Each workload on each side, with the prefix cache and without, sides taking turns.

    With the cache each stage of the programs has its turn. Without it the last one only, and once: that takes long, and
    the sides differ by more than chance does.
    """
    for cache in ("on", "off"):
        arguments = [source, chosen.dtype, str(chosen.kv_tokens), cache]
        worker = Worker(Path(sys.executable), "benchmarks.inferlets.agentic", arguments, chosen.threads)
        found = run["agents"].setdefault(cache, {})
        try:
            for number in range(chosen.rounds if cache == "on" else 1):
                for workload in chosen.work or WORKLOADS:
                    console.log(f"prefix cache {cache}, {workload}, round {number + 1}")
                    stages, agents = WORKLOADS[workload].stages, chosen.agents or WORKLOADS[workload].agents
                    sides = ("stateless", *(stages if cache == "on" else stages[-1:]))
                    for side in reversed(sides) if number % 2 else sides:
                        told = worker.ask("agents", workload=workload, agents=agents, side=side)
                        found.setdefault(workload, {}).setdefault(side, []).append(told)
            if cache == "on" and not chosen.work:
                told = worker.ask("completion", prompt=64, tokens=16 if chosen.quick else 128)
                run["figures"]["completion"] = {**told, "ratio": told["program"] / told["own"]}
        finally:
            worker.close()


def main() -> None:
    chosen = options()
    run: dict[str, Any] = {
        "machine": common.machine(),
        "commit": common.commit(),
        "wasmtime": version("wasmtime"),
        "model": "the dummy"
        if chosen.quick
        else f"a model of random weights in the shape of Qwen3-0.6B, {chosen.dtype}",
        "figures": {},
        "agents": {},
    }
    CACHE.mkdir(parents=True, exist_ok=True)
    if chosen.only != "agents":
        costs(run, chosen)
    if chosen.only != "costs":
        agentic(run, chosen, "dummy" if chosen.quick else str(setup.model()))
    if not chosen.quick and not chosen.only:
        console.log("written:", *map(str, common.write(run, "inferlets", report.markdown)))
    common.draw(report.sections(run), Console())


if __name__ == "__main__":
    main()
