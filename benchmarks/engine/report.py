"""A run's figures as tables: each precision beside its peers, the shares of a step, the aims."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.report import Row, Section, tables

PEERS = {"bf16": ("transformers bf16", "llama.cpp bf16"), "int8": ("llama.cpp q8_0",), "int4": ("llama.cpp q4_0",)}
PREFILL = "prefill 512"


def decode_name(sequences: int, context: int) -> str:
    return f"decode {sequences} x {context}"


def value(run: dict[str, Any], system: str, point: str) -> float | None:
    """The median of *point* over all rounds, in tokens per second."""
    samples = run["systems"].get(system, {}).get("points", {}).get(point, [])
    return median(samples) if samples else None


def ratio(run: dict[str, Any], dtype: str, peer: str, point: str) -> float | None:
    ours, theirs = value(run, f"ours {dtype}", point), value(run, peer, point)
    return ours / theirs if ours and theirs else None


def _number(found: float | None, form: str = ",.1f") -> str:
    return "-" if found is None else f"{found:{form}}"


def _precision(run: dict[str, Any], dtype: str) -> Section:
    peers = PEERS[dtype]
    head = ["tokens/s", *peers, f"ours {dtype}", *(f"x {peer.split()[0]}" for peer in peers)]
    rows = []
    for point in run["points"]:
        found = [value(run, peer, point) for peer in peers]
        ratios = [ratio(run, dtype, peer, point) for peer in peers]
        ours = value(run, f"ours {dtype}", point)
        if ours is not None or any(found):
            rows.append([point, *map(_number, found), _number(ours), *(_number(it, ".2f") for it in ratios)])
    return f"{dtype}: prompt of 512 tokens, and decoding N sequences at context C", head, rows


def _steps(run: dict[str, Any]) -> Section:
    rows: list[Row] = []
    for system, found in run["systems"].items():
        for point, steps in found.get("steps", {}).items():
            step = {key: median(one[key] for one in steps) for key in steps[0]}
            shares = found.get("linears", {}).get(point)
            rows.append(
                [
                    f"{system}, {point}",
                    f"{step['step_ms']:.1f}",
                    *(f"{step[phase]:.2f}" for phase in ("plan_ms", "sample_ms", "commit_ms", "publish_ms")),
                    f"{step['overhead']:.1%}",
                    "-" if shares is None else f"{median(shares):.0%}",
                ]
            )
    head = ["a step", "ms", "plan", "sample", "commit", "publish", "not the model", "linears by themselves"]
    return "Where a step of ours goes, ms", head, rows


def _memory(run: dict[str, Any]) -> Section:
    rows = [
        [system, f"{it['loaded']:,.0f}", f"{it['peak']:,.0f}", f"{it['files']:,.0f}"]
        for system, found in run["systems"].items()
        if (it := found.get("memory"))
    ]
    of = "tensors on the GPU" if run.get("card") else "the process"
    title = f"Memory of {of}, MiB; ours with a KV pool of {run['kv_tokens']:,} tokens"
    return title, ["system", "model loaded", "most", "of it mapped files, at the end"], rows


def _shared(run: dict[str, Any]) -> Section:
    rows = [[what, text] for what, text in run.get("texts", {}).items()]
    return "Shared prefixes, forks, and a new prompt under load (ours, bf16)", ["what", "measured"], rows


def _at_least(run: dict[str, Any], dtype: str, peer: str, points: list[str]) -> float | None:
    found = [it for point in points if (it := ratio(run, dtype, peer, point)) is not None]
    return min(found) if found else None


def _aims(run: dict[str, Any]) -> Section:
    many = [point for point in run["points"] if point.startswith("decode") and int(point.split()[1]) >= 8]
    one = [point for point in run["points"] if point.startswith("decode 1 ")]
    wanted: list[tuple[str, float, float | None]] = []
    for dtype, peers in PEERS.items():
        llama = peers[-1]
        wanted.append((f"{dtype}, 8 or more sequences, x llama.cpp", 1.5, _at_least(run, dtype, llama, many)))
        single = 0.9 if dtype == "bf16" else 1.0
        wanted.append((f"{dtype}, one sequence, x llama.cpp", single, _at_least(run, dtype, llama, one)))
        wanted.append((f"{dtype}, prefill, x llama.cpp", 1.3, _at_least(run, dtype, llama, [PREFILL])))
    wanted.append(("bf16, 8 or more, x transformers", 2.5, _at_least(run, "bf16", PEERS["bf16"][0], many)))
    rows = [_verdict(what, aim, found) for what, aim, found in wanted if found is not None]
    for system, found in run["systems"].items():
        if (shares := found.get("linears", {}).get(decode_name(32, 64))) is not None:
            rows.append(_verdict(f"{system}, share of a step in linears at 32", 0.7, median(shares)))
        if steps := found.get("steps", {}).get(decode_name(32, 64)):
            overhead = median(step["overhead"] for step in steps)
            rows.append(_verdict(f"{system}, share of a step beside the model at 32", 0.05, overhead, most=True))
    rows += [_verdict(what, aim, found, most=True) for what, aim, found in run.get("limits", [])]
    return "Aims (the least of the points that one speaks of)", ["aim", "wanted", "measured", ""], rows


def _verdict(what: str, aim: float, found: float, most: bool = False) -> Row:
    met = found <= aim if most else found >= aim
    return [what, f"{'at most' if most else 'at least'} {aim:g}", f"{found:.3g}", "met" if met else "missed"]


def sections(run: dict[str, Any]) -> list[Section]:
    found = [*(_precision(run, dtype) for dtype in PEERS), _steps(run), _shared(run), _memory(run), _aims(run)]
    return [section for section in found if section[2]]


def markdown(run: dict[str, Any]) -> str:
    facts = run["machine"]
    where = f", {run['card']}" if run.get("card") else ""
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    lines = [
        f"# The engine, {facts['at']}",
        "",
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}; Python "
        f"{facts['python']}, {versions}; {run['threads']} threads{where}; load average before the run "
        f"{facts['load_before'][0]}; commit {run['commit']}; {run['rounds']} rounds, medians.",
        "",
        "One model of random weights in the shape of Qwen3-0.6B for all of them. One system runs at a time, in a "
        "process of its own, and every system has its turn in each round. Others' CPU right before each turn, at most: "
        f"{max(run['busy'], default=0):.0f} %.",
    ]
    return "\n".join([*lines, *tables(sections(run))]) + "\n"
