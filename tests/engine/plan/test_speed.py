"""Planning is a small part of a step. Limits are several times what it takes, so that a busy machine passes too."""

from __future__ import annotations

import time
from statistics import median

from bakehouse.engine.params import GREEDY
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.plan.step import ReadoutResult


def decode_step_s(context_tokens: int, sequences: int = 32, rounds: int = 40) -> float:
    """Median seconds of submit, plan and commit per step of *sequences* that decode."""
    planner = Planner(PlanLimits(pages=sequences * (context_tokens // 16 + 8)))
    contexts = [planner.contexts.create("") for _ in range(sequences)]
    for number, context in enumerate(contexts):
        planner.submit(Pass("", context, [number, *range(context_tokens - 1)]))
    while not planner.idle():
        planner.commit(planner.plan(0.0), [], 0.0)
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        for number, context in enumerate(contexts):
            planner.submit(Pass("", context, [number], wants=[Want(0, GREEDY)], stream=number + 1))
        step = planner.plan(0.0)
        planner.commit(step, [ReadoutResult(5)] * len(step.plan.readouts), 0.0)
        took.append(time.perf_counter() - start)
        assert len(step.parts) == sequences
    planner.check_integrity()
    return median(took)


def test_planning_a_decode_step_of_32_sequences_takes_under_a_millisecond() -> None:
    """Under 0.5 ms where this was written, submitting and committing included."""
    assert min(decode_step_s(1024) for _ in range(3)) < 0.001


def test_the_length_of_contexts_does_not_matter() -> None:
    short, long = (min(decode_step_s(length) for _ in range(3)) for length in (64, 4096))
    assert long < 1.5 * short
