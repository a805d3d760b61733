"""A run's figures as tables, beside their aims."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.report import Row, Section, tables

#: What is aimed at: key of `run["figures"]`, its name, the aim, whether it is a least.
AIMS: list[tuple[str, str, float, bool]] = [
    ("warm.p50", "warm launch to result, p50, ms", 4.0, False),
    ("rate.rate", "launches a second", 300.0, True),
    ("first.from_disk", "first launch of a program from disk, ms", 500.0, False),
    ("messages.p50", "message to a program and back, in the process, ms", 0.3, False),
    ("sockets.message", "message to a program and back, over the WebSocket, ms", 0.3, False),
    ("sockets.uvloop_message", "the same, by a client on uvloop, ms", 0.3, False),
    ("sockets.launch", "launch to result over the WebSocket, ms", 4.2, False),
    ("sockets.uvloop_launch", "the same, by a client on uvloop, ms", 4.2, False),
    ("together.each", "private memory of one of 500 instances, MiB", 4.0, False),
    ("growth.mib", "growth over 10,000 launches, MiB", 20.0, False),
    ("growth.threads", "threads left after 10,000 launches", 0.0, False),
    ("calls.scalar", "host call with numbers, µs", 15.0, False),
    ("calls.text", "host call with a short text, µs", 15.0, False),
    ("calls.mask_next", "next mask of a matcher, made and released, µs", 1000.0, False),
    ("calls.mask_in", "a mask of 150,000 runs to the host, µs", 1000.0, False),
    ("calls.mask_out", "a mask of 150,000 runs from the host, µs", 1000.0, False),
    ("calls.file", "a file of 1 MiB, µs", 10_000.0, False),
    ("completion.ratio", "plain completion by a program, x the engine's own time", 1.03, False),
]


def _aims(run: dict[str, Any]) -> Section:
    rows: list[Row] = []
    for key, name, aim, least in AIMS:
        group, field = key.split(".")
        found = run["figures"].get(group, {}).get(field)
        if found is not None:
            met = found >= aim if least else found <= aim
            rows.append(
                [name, f"{'at least' if least else 'at most'} {aim:g}", f"{found:.4g}", "met" if met else "missed"]
            )
    return "What things cost", ["what", "aim", "measured", ""], rows


#: Who does the agentic work, as the tables name it.
SIDES = {
    "stateless": "stateless requests",
    "contexts": "programs that keep contexts",
    "known": "... and fill what is known",
    "drafts": "... and draft what was said",
}


def _agents(run: dict[str, Any], cache: str) -> Section:
    rows: list[Row] = []
    for workload, found in run["agents"].get(cache, {}).items():
        middle = {side: _middle(samples) for side, samples in found.items()}
        told = {figures["said"] for figures in middle.values()}
        if len(told) != 1:
            raise ValueError(f"{workload}: the sides did not say as much: {told}")
        before = first = middle["stateless"]["seconds"]
        for side in (each for each in SIDES if each in middle):
            rows.append(_side(workload, side, middle[side], first, before))
            if side != "stateless" and "contexts" not in middle:  # one line has all stages
                rows[-1][2:6:3] = ["programs, with all of that", ""]
            before = middle[side]["seconds"]
    head = ["work", "agents", "by", "s", "gain", "of this step", "answers", "run", "drafts", "held", "steps"]
    return f"Agentic work, prefix cache {cache}", head, rows


def _side(workload: str, side: str, figures: dict[str, float], first: float, before: float) -> Row:
    """*first* and *before*: seconds of the stateless side, and of the one that is listed before."""
    seconds, drafted = figures["seconds"], figures["plan_drafted"]
    return [
        workload,
        f"{figures['agents']:.0f}",
        SIDES[side],
        f"{seconds:.2f}",
        f"{first / seconds:.2f}",
        "" if side == "stateless" else f"{before / seconds:.2f}",
        f"{figures['said']:,.0f}",
        f"{figures['rows']:,.0f}",
        f"{drafted:,.0f}",
        f"{1 - figures['plan_rejected'] / drafted:.0%}" if drafted else "",
        f"{figures['steps']:,.0f}",
    ]


def _middle(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(sample[name] for sample in samples) for name in samples[0]}


def sections(run: dict[str, Any]) -> list[Section]:
    return [section for section in (_aims(run), _agents(run, "on"), _agents(run, "off")) if section[2]]


def markdown(run: dict[str, Any]) -> str:
    facts = run["machine"]
    lines = [
        f"# Inferlets, {facts['at']}",
        "",
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}; Python "
        f"{facts['python']}, wasmtime {run['wasmtime']}; load average before the run {facts['load_before'][0]}; commit "
        f"{run['commit']}.",
        "",
        "Launches, calls, messages and memory are measured on the dummy model, which takes no time worth the name. "
        f"Agentic work and the completion run on {run['model']}.",
        "",
        "All sides of the agentic work have the model say the same text, held to it by grammars that were compiled "
        "before. A token is a byte, so that counts are exact; copies and known words are longer in bytes than in the "
        "tokens of a real vocabulary, and drafts hold for longer. The stateless side calls the engine in its own "
        "process, without HTTP, JSON or a second process: what it loses is the engine's work alone. It has no drafts, "
        "though a server might be set up to make them; the line before shows programs without. `answers` are "
        "tokens that were said, `run` those and what had to be read for them, and drafts; `gain` is against the "
        "stateless side, `of this step` against the line before.",
    ]
    return "\n".join([*lines, *tables(sections(run))]) + "\n"
