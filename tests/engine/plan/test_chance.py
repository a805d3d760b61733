"""The machine driven by plain dice: longer programs, and many more of them in the same time, than hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.engine.plan.fake import VOCABULARY
from tests.engine.plan.test_machine import OWNERS, PROGRAMS, Machine

KINDS = ["plain"] * 6 + ["masks", "window", "positions", "forward", "adapter"]


def shape(dice: Random) -> dict[str, Any]:
    count = dice.choice([1, 1, 2, 3, 4, 5, 8, 9, 13, 17, 30])
    varied = dice.random() < 0.3
    return {
        "kind": dice.choice(KINDS),
        "tokens": [dice.randrange(2) if varied else 0 for _ in range(count)],
        "wants": [dice.randrange(count) for _ in range(dice.randrange(4))],
        "last": dice.random() < 0.5,
        "drafts": [dice.randrange(VOCABULARY) for _ in range(dice.choice([0, 0, 0, 1, 3, 6]))],
        "noise": dice.randrange(2**32),
        "priority": dice.choice([0, 0, 0, 1, 5]),
        "deadline": dice.choice([None, None, None, 1, 4]),
        "stream": dice.randrange(3),
        "owner": dice.choice(OWNERS),
        "alone": dice.random() < 0.1,
    }


def orders(dice: Random) -> dict[str, tuple[float, Callable[[], dict[str, Any]]]]:
    """What may be done: how often, and with what."""

    def which() -> int:
        return dice.randrange(20)

    def named() -> dict[str, Any]:
        return {"name": dice.choice([None, None, "x"]), "program": dice.choice(PROGRAMS)}

    return {
        "create": (2, lambda: {"owner": dice.choice(OWNERS), **named()}),
        "fork": (3, lambda: {"number": which(), **named()}),
        "release": (1, lambda: {"number": which()}),
        "end_program": (0.3, lambda: {"program": dice.choice(PROGRAMS)}),
        "submit": (8, lambda: {"number": which(), "shape": shape(dice)}),
        "run_now": (3, lambda: {"number": which(), "shape": shape(dice)}),
        "fork_and_run_both": (1, lambda: {"parent": which(), "shape": shape(dice), "other": shape(dice)}),
        "set_cursor": (1, lambda: {"number": which(), "count": dice.randrange(10)}),
        "rewind": (2, lambda: {"number": which(), "count": dice.randrange(13)}),
        "reserve_pages": (1.5, lambda: {"number": which(), "count": dice.randrange(5)}),
        "release_pages": (1, lambda: {"number": which(), "count": dice.randrange(4)}),
        "commit_pages": (
            1.5,
            lambda: {"number": which(), "order": dice.sample(range(3), 3), "count": dice.randrange(4)},
        ),
        "cancel": (1.5, lambda: {"number": which()}),
        "wait": (1, lambda: {"seconds": dice.choice([0, 1, 2, 10])}),
        "plan": (6, dict),
        "commit": (6, dict),
        "fail": (1, dict),
        "one_step": (3, dict),
        "settle": (0.5, dict),
    }


def play(seed: int) -> Machine:
    """One program of chance, every invariant checked after each of its calls."""
    dice = Random(seed)
    machine, possible = Machine(), orders(dice)
    names, weights = list(possible), [often for often, _ in possible.values()]
    for name in dice.choices(names, weights, k=dice.randrange(10, 150)):
        running = machine.planner.running is not None
        if (name in ("plan", "one_step") and running) or (name in ("commit", "fail") and not running):
            continue
        getattr(machine, name)(**possible[name][1]())
        machine.books_are_right()
        machine.contexts_are_as_they_should_be()
    machine.teardown()
    return machine


def test_programs_of_chance() -> None:
    played = [play(seed).planner for seed in range(150)]
    met = {
        "adopted": sum(planner.counters.adopted for planner in played),
        "recomputed": sum(planner.counters.recomputed for planner in played),
        "copies": sum(planner.counters.copies for planner in played),
        "rejected": sum(planner.counters.rejected for planner in played),
        "preemptions": sum(planner.preemptions for planner in played),
        "evictions": sum(planner.pages.evictions for planner in played),
    }
    assert all(count > 50 for count in met.values()), f"what is hard was met: {met}"


@pytest.mark.slow
def test_programs_of_chance_for_long() -> None:
    for seed in range(1000, 11000):
        play(seed)
