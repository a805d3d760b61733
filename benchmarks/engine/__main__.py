"""``make bench-engine``: our engine, transformers and llama.cpp, one at a time, in rounds."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report as common
from benchmarks.engine import report, setup
from benchmarks.engine.workers import Worker, WorkerFailed
from benchmarks.processes import settle

console = Console(stderr=True)

#: Tokens per sequence: enough for a steady rate, few enough for the whole to end in time.
TOKENS = {1: 24, 8: 16, 32: 10, 64: 8}
OURS = ("bf16", "int8", "int4")
LLAMA = ("bf16", "q8_0", "q4_0")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="systems whose name contains one of these words")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each system")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: bf16, without llama.cpp")
    parser.add_argument("--settle", type=float, default=10.0, help="longest wait for a quiet machine before a turn, s")
    parser.add_argument("--quick", action="store_true", help="one round, 1 and 8 sequences at 64; nothing is written")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.sequences, chosen.contexts = 1, [1, 8], [64]
    return chosen


def pool_tokens(chosen: argparse.Namespace) -> int:
    """KV that the largest point and the fork of a long context need."""
    return max(max(chosen.sequences) * (max(chosen.contexts) + 64), 3 * 4096)


def starters(chosen: argparse.Namespace) -> dict[str, tuple[Path, str, list[str]]]:
    """Name to interpreter, module and arguments of each system that was asked for."""
    ours, folder, threads = Path(sys.executable), str(setup.model()), str(chosen.threads)
    kv_tokens = str(pool_tokens(chosen))
    device = chosen.device
    found = {"transformers bf16": (ours, "benchmarks.engine.transformers_generate", [folder, threads, device])}
    if device == "cpu":
        found |= {f"llama.cpp {kind}": (ours, "benchmarks.engine.llama", [kind, threads]) for kind in LLAMA}
    for dtype in OURS if device == "cpu" else OURS[:1]:
        arguments = [folder, dtype, threads, kv_tokens, device]
        found[f"ours {dtype}"] = (ours, "benchmarks.engine.ours", arguments)
    wanted = {name: it for name, it in found.items() if not chosen.only or any(word in name for word in chosen.only)}
    if any(name.startswith("llama.cpp") for name in wanted):
        python = setup.llama_python()
        files = setup.llama_files(python)
        for kind in LLAMA:
            if f"llama.cpp {kind}" in wanted:
                arguments = [str(files / f"{kind}.gguf"), threads]
                wanted[f"llama.cpp {kind}"] = (python, "benchmarks.engine.llama", arguments)
    return wanted


def turn(run: dict[str, Any], name: str, worker: Worker, chosen: argparse.Namespace) -> None:
    """One system's turn: every point, and what only ours has."""
    found = run["systems"].setdefault(name, {"points": {}, "steps": {}, "linears": {}})
    loaded = worker.ask("memory")["now"]
    worker.ask("prefill", tokens=64)
    for _ in range(2):
        _add(found["points"], report.PREFILL, worker.ask("prefill", tokens=512))
    for context in chosen.contexts:
        for sequences in chosen.sequences:
            point = report.decode_name(sequences, context)
            tokens = TOKENS.get(sequences, 12)
            for _ in range(2 if context <= 64 else 1):
                told = worker.ask("decode", sequences=sequences, context=context, tokens=tokens)
                _add(found["points"], point, told.pop("rate"))
                if told and chosen.device == "cpu":  # a GPU works on after the host's clock has stopped
                    _add(found["steps"], point, told)
    if name.startswith("ours") and chosen.device == "cpu":
        sequences = max(min(32, max(chosen.sequences)), 1)
        point = report.decode_name(sequences, min(chosen.contexts))
        step = statistics.median(told["step_ms"] for told in found["steps"][point])
        _add(found["linears"], point, worker.ask("linears", rows=sequences) / step)
    if name == "ours bf16":
        extras(run, worker, chosen)
    memory = worker.ask("memory")
    found["memory"] = {"loaded": loaded, "peak": memory["peak"], "files": memory["files"]}


def extras(run: dict[str, Any], worker: Worker, chosen: argparse.Namespace) -> None:
    """Sharing, forks and load; the limits that are aims go to the table of aims."""
    count, prompt = (4, 256) if chosen.quick else (32, 1024)
    texts, run["limits"] = run.setdefault("texts", {}), []
    for how, forks in (("forks", True), ("requests at once", False)):
        told = worker.ask("continuations", count=count, prompt=prompt, forks=forks)
        texts[f"{count} continuations of one {prompt}-token prompt, {how}"] = (
            f"{told['rows']:.0f} rows run, {told['seconds']:.2f} s"
        )
        run["limits"].append((f"prefills that {count} continuations cost, {how}", 1.1, told["rows"] / prompt))
    fork = worker.ask("fork", tokens=4096)
    texts["fork of 4,096 tokens"] = f"{fork * 1000:.3f} ms"
    for running in (0, 1, 7, 31):
        if running < max(chosen.sequences):
            told = worker.ask("under_load", running=running, context=64, prompt=512)
            texts[f"first token of a 512-token prompt, {running} sequences decoding"] = (
                f"{told['ttft_s'] * 1000:,.0f} ms; longest pause of the others {told['longest_gap_s'] * 1000:,.0f} ms"
            )
    run["limits"].append(("fork of 4,096 tokens, ms", 1.0, fork * 1000))


def _add(table: dict[str, list[Any]], key: str, sample: Any) -> None:
    table.setdefault(key, []).append(sample)


def main() -> None:
    chosen = options()
    names = [report.decode_name(sequences, context) for context in chosen.contexts for sequences in chosen.sequences]
    run: dict[str, Any] = {
        "machine": common.machine(),
        "commit": common.commit(),
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "kv_tokens": pool_tokens(chosen),
        "card": "",
        "points": [report.PREFILL, *names],
        "versions": {},
        "busy": [],
        "systems": {},
    }
    systems = starters(chosen)
    for number in range(chosen.rounds):
        for name, (python, module, arguments) in systems.items():
            run["busy"].append(settle(chosen.settle))
            console.log(f"round {number + 1}: {name}")
            try:
                worker = Worker(python, module, arguments, chosen.threads)
            except WorkerFailed as failed:
                console.log(f"{name} is left out: {failed}")
                continue
            run["versions"] |= {
                name.split()[0] if key == "version" else key: value
                for key, value in worker.ready.items()
                if key in ("version", "torch")
            }
            run["card"] = worker.ready.get("card", "")
            try:
                turn(run, name, worker, chosen)
            except WorkerFailed as failed:
                console.log(f"{name}: {failed}")
            finally:
                worker.close()
    if not chosen.quick and not chosen.only:
        name = "engine" if chosen.device == "cpu" else "engine-cuda"
        console.log("written:", *map(str, common.write(run, name, report.markdown)))
    common.draw(report.sections(run), Console())


if __name__ == "__main__":
    main()
