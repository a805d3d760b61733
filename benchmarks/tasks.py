"""``make bench-tasks``: our server and its peers, one after another on this machine."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.measure_ours import Ours
from benchmarks.measure_peers import MEASURES, measure
from benchmarks.processes import settle

console = Console(stderr=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--only", choices=["ours", "peers", "all"], default="all", help="what to measure")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64], help="callers at one time")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each point")
    parser.add_argument("--quick", action="store_true", help="2 s per point, fewer streams, nothing is written")
    parser.add_argument("--no-streams", action="store_true", help="skip the stream figures")
    parser.add_argument("--profile", action="store_true", help="sample our server with py-spy at 64 callers")
    parser.add_argument(
        "--settle", type=float, default=15.0, help="longest wait for a quiet machine before a system, s"
    )
    parser.add_argument("--database", help="PostgreSQL URL for our server; the default is SQLite")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds = min(chosen.seconds, 2.0)
    return chosen


def measure_streams(ours: Ours, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fan-out of one task and a crowd of tasks; the rates are the aims', so that a miss shows as a share below 1."""
    small = chosen.quick
    found: dict[str, Any] = {}
    for streams, rate in ((100, 900.0), (1000, 80.0)):
        if small and streams > 100:
            continue
        console.log(f"ours: one task, {streams} streams")
        found[f"1 task, {streams} streams"] = ours.fan_out(streams, rate, chosen.seconds)
    crowd = 100 if small else 1000
    console.log(f"ours: {crowd} tasks with a stream each")
    seconds = chosen.seconds if small else 30.0
    found[f"{crowd} tasks, 20 updates/s each"] = ours.crowd(crowd, 20.0, seconds)
    return found


def measure_ours(run: dict[str, Any], chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="bakehouse-bench-") as folder, Ours(Path(folder), chosen.database) as ours:
        ours.tasks(16, 1.0)  # pages, caches and the instance are warm before the first figure
        run["busy"][report.OURS] = settle(chosen.settle)
        run["systems"][report.OURS] = {}
        for callers in chosen.callers:
            console.log(f"ours: {callers} callers")
            run["systems"][report.OURS][str(callers)] = ours.tasks(callers, chosen.seconds)
        if not chosen.no_streams:
            run["streams"] = measure_streams(ours, chosen)
        if chosen.profile:
            console.log("ours: profile")
            report.RESULTS.mkdir(exist_ok=True)
            run["profile"] = ours.profile(max(chosen.seconds, 5), Path(folder) / "stacks.txt")


def main() -> None:
    chosen = options()
    run: dict[str, Any] = {
        "machine": report.machine(),
        "commit": report.commit(),
        "seconds": chosen.seconds,
        "database": "PostgreSQL" if chosen.database else "SQLite, WAL, synchronous=FULL",
        "busy": {},
        "systems": {},
        "streams": {},
    }
    if chosen.only != "ours":
        for name in MEASURES:
            console.log(name)
            run["busy"][name] = settle(chosen.settle)
            run["systems"][name] = measure(name, chosen.callers, chosen.seconds)
    if chosen.only != "peers":
        measure_ours(run, chosen)
    if not chosen.quick:
        console.log("written:", *map(str, report.write(run)))
    report.show(run, Console())


if __name__ == "__main__":
    main()
