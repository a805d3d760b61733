"""The engine benchmark's arithmetic: medians, ratios, and aims that are met by the least of their points."""

from __future__ import annotations

from typing import Any

from benchmarks.engine import report

STEP = {"step_ms": 100.0, "plan_ms": 1.0, "sample_ms": 2.0, "commit_ms": 0.5, "publish_ms": 0.5, "overhead": 0.04}


def run() -> dict[str, Any]:
    def points(prefill: float, one: float, many: float) -> dict[str, list[float]]:
        return {"prefill 512": [prefill, prefill * 9, prefill], "decode 1 x 64": [one], "decode 32 x 64": [many]}

    return {
        "points": ["prefill 512", "decode 1 x 64", "decode 32 x 64"],
        "kv_tokens": 12_288,
        "systems": {
            "transformers bf16": {
                "points": points(100, 10, 80),
                "memory": {"loaded": 1000.0, "peak": 1500.0, "files": 300.0},
            },
            "llama.cpp bf16": {"points": points(200, 30, 200)},
            "ours bf16": {
                "points": points(300, 24, 240),
                "steps": {"decode 32 x 64": [STEP, {**STEP, "overhead": 0.08}, STEP]},
                "linears": {"decode 32 x 64": [0.75]},
            },
        },
        "texts": {"fork": "0.1 ms"},
        "limits": [("fork, ms", 1.0, 0.1), ("prefills", 1.1, 1.5)],
    }


def section(title: str) -> list[list[str]]:
    return next(rows for name, _, rows in report.sections(run()) if name.startswith(title))


def test_rows_are_medians_with_ratios_to_each_peer() -> None:
    assert section("bf16") == [
        ["prefill 512", "100.0", "200.0", "300.0", "3.00", "1.50"],
        ["decode 1 x 64", "10.0", "30.0", "24.0", "2.40", "0.80"],
        ["decode 32 x 64", "80.0", "200.0", "240.0", "3.00", "1.20"],
    ]


def test_aims_are_judged_by_their_least_point() -> None:
    verdicts = {row[0]: (row[2], row[3]) for row in section("Aims")}
    assert verdicts == {
        "bf16, 8 or more sequences, x llama.cpp": ("1.2", "missed"),
        "bf16, one sequence, x llama.cpp": ("0.8", "missed"),
        "bf16, prefill, x llama.cpp": ("1.5", "met"),
        "bf16, 8 or more, x transformers": ("3", "met"),
        "ours bf16, share of a step in linears at 32": ("0.75", "met"),
        "ours bf16, share of a step beside the model at 32": ("0.04", "met"),
        "fork, ms": ("0.1", "met"),
        "prefills": ("1.5", "missed"),
    }


def test_systems_that_did_not_run_leave_no_empty_tables() -> None:
    titles = [title for title, _, _ in report.sections(run())]
    assert not any(title.startswith(("int8", "int4")) for title in titles)
    assert section("Where")[0][-2:] == ["4.0%", "75%"]
