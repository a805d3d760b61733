"""A run's figures as a table for people and as files: Markdown and JSON under ``benchmarks/results/``."""

from __future__ import annotations

import json
import platform
import sqlite3
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
OURS = "Bakehouse"
Row = list[str]
#: A title, the names of the columns, the rows.
Section = tuple[str, Row, list[Row]]

TARGETS = {
    "tasks_64": ("no-op tasks/s at 64 callers", 1800.0, "at least"),
    "p50_1": ("p50 with one caller, ms", 4.0, "at most"),
    "fan_out_100": ("updates/s over 100 streams", 40_000.0, "at least"),
}


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare: processor, memory, versions, load before the run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "uvicorn": version("uvicorn"),
        "load_before": [round(value, 2) for value in psutil.getloadavg()],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """The tree that is measured, as git names it."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, check=False)
    return told.stdout.decode().strip() or "unknown"


def task_rows(run: dict[str, Any]) -> list[Row]:
    """One row per system and number of callers; ratios are to LitServe at the same number of callers."""
    base = run["systems"].get("LitServe", {})
    rows = []
    for name, figures in run["systems"].items():
        busy = f"{run['busy'].get(name, 0):.0f}%"
        if "missing" in figures:
            rows.append([name, "-", "-", "-", "-", "-", figures["missing"].splitlines()[0][:60], busy])
        for callers, found in figures.items():
            if callers == "missing":
                continue
            peer = base.get(callers, {}).get("rate")
            ratio = f"{found['rate'] / peer:.2f}" if peer else "-"
            times = ["-", "-"] if callers == "batch" else [f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}"]
            rows.append([name, callers, f"{found['rate']:,.0f}", *times, ratio, str(found["errors"]), busy])
    return rows


def cpu_rows(run: dict[str, Any]) -> list[Row]:
    """What a task of ours costs in processor time, which says more than a rate on a machine that others use too."""
    found = run["systems"].get(OURS, {})
    return [[n, f"{it['server_cpu_ms']:.2f}", f"{it['instance_cpu_ms']:.2f}"] for n, it in found.items()]


def stream_rows(run: dict[str, Any]) -> list[Row]:
    rows = []
    for name, found in run["streams"].items():
        terminal = f"{found['terminal']} of {found['streams']}"
        memory = [own for _, own, _ in found["memory"]] or [0.0]
        steady = f"{memory[0]:.0f} / {max(memory):.0f} / {memory[-1]:.0f}"
        delivered = f"{found['share']:.0%}"
        rows.append([name, f"{found['rate']:,.0f}", delivered, f"{found['megabytes']:.0f}", terminal, steady])
    return rows


def verdicts(run: dict[str, Any]) -> list[Row]:
    """Each aim with what was measured and by how much it was met or missed."""
    ours, streams = run["systems"].get(OURS, {}), run["streams"]
    measured = {
        "tasks_64": ours.get("64", {}).get("rate"),
        "p50_1": ours.get("1", {}).get("p50_ms"),
        "fan_out_100": streams.get("1 task, 100 streams", {}).get("rate"),
    }
    rows = []
    for key, (what, aim, sense) in TARGETS.items():
        value = measured[key]
        if value is not None:
            met = value >= aim if sense == "at least" else value <= aim
            rows.append(
                [what, f"{sense} {aim:,.0f}", f"{value:,.2f}", "met" if met else f"missed ({value / aim:.2f}x)"]
            )
    return rows


TASK_HEAD = ["system", "callers", "tasks/s", "p50 ms", "p99 ms", "x LitServe", "errors", "others' CPU"]
CPU_HEAD = ["callers", "server ms", "instance ms"]
STREAM_HEAD = ["streams", "updates/s", "delivered", "MB", "terminal events", "server MiB start/peak/end"]
AIM_HEAD = ["aim", "wanted", "measured", ""]


def sections(run: dict[str, Any]) -> list[Section]:
    found = [
        ("One no-op call per request", TASK_HEAD, task_rows(run)),
        ("Processor time of one task of ours", CPU_HEAD, cpu_rows(run)),
        ("Task streams", STREAM_HEAD, stream_rows(run)),
        ("Aims", AIM_HEAD, verdicts(run)),
    ]
    for kind, title in (("room", "by innermost package"), ("function", "own time by function")):
        shares = [[f"{share:.1%}", name] for which, share, name in run.get("profile", []) if which == kind]
        found.append((f"Where the server's Python time goes at 64 callers, {title}", ["share", kind], shares))
    return [(title, head, rows) for title, head, rows in found if rows]


def show(run: dict[str, Any], console: Console) -> None:
    draw(sections(run), console)


#: Characters; no table is as wide.
UNBOUNDED = 10_000


def draw(found: list[Section], console: Console) -> None:
    """Print tables; one that is wider than the terminal in Markdown, whose cells stay whole."""
    for section in found:
        title, head, rows = section
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(head):
            table.add_column(column, no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        if console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
            console.print(table)
        else:
            console.print("\n".join(tables([section])), markup=False, highlight=False, soft_wrap=True)


def tables(found: list[Section]) -> list[str]:
    """The lines of *found* in Markdown."""
    lines = []
    for title, head, rows in found:
        lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def markdown(run: dict[str, Any]) -> str:
    facts = run["machine"]
    lines = [
        f"# Tasks, {facts['at']}",
        "",
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}; "
        f"Python {facts['python']}, SQLite {facts['sqlite']}, uvicorn {facts['uvicorn']}; "
        f"load average before the run {facts['load_before'][0]}; {run['seconds']:g} s per point; "
        f"commit {run['commit']}; our store: {run['database']}.",
        "",
        "Generators, servers and workers share the cores. Latencies are those of one call from request to result. "
        "The last column is what other programs used of the cores right before: rows compare only where it is small.",
    ]
    return "\n".join([*lines, *tables(sections(run))]) + "\n"


def write(run: dict[str, Any], name: str = "tasks", text_of: Callable[[dict[str, Any]], str] = markdown) -> list[Path]:
    """Write ``NAME.md`` and ``NAME.json``; returns their paths."""
    RESULTS.mkdir(exist_ok=True)
    text, data = RESULTS / f"{name}.md", RESULTS / f"{name}.json"
    text.write_text(text_of(run))
    data.write_text(json.dumps(run, indent=1) + "\n")
    return [text, data]
