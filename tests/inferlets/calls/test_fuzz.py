"""Any calls in any order, with any values of the right type: each answers, or fails with an error for the guest."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.errors import InferletError
from tests.inferlets.calls.support import Make, context, generated, model, ready

ZO = {"rank": 2, "alpha": 4.0, "population_size": 2, "mu_fraction": 0.5, "initial_sigma": 0.1}


def numbers(chance: random.Random) -> int:
    return chance.choice([0, 1, 1, 1, 2, 2, 3, 4, 5, chance.randrange(60), 2**31, 2**32 - 1])


def packed(chance: random.Random) -> str:
    return chance.choice(["", "abc", "€", pack_ids(chance.randrange(300) for _ in range(chance.randrange(20)))])


def request(chance: random.Random) -> str:
    result = {"kind": chance.choice(["dist", "embedding", "top_k"])}
    some: dict[str, Any] = {
        "sampler": {"kind": chance.choice(["dist", "top_p", "embedding", "x"]), "temperature": chance.random()},
        "max_tokens": chance.choice([0, 1, 5, -1, None]),
        "stop": {"tokens": [chance.randrange(300)], "strings": chance.choice([[], ["e"], [""]])},
        "mask": chance.randrange(4),
        "matcher": chance.randrange(4),
        "adapter": chance.randrange(4),
        "zo_seed": chance.choice([0, 5, 2**70]),
        "draft": {"tokens": 4, "longest": 2},
        "decode": {"text": True, "reasoning": True, "tool_use": True},
        "whole": chance.random() < 0.5,
        "timeout": chance.choice([0, 1, None]),
        "grammar": {"kind": "regex", "source": chance.choice(["a{3}", "("])},
        "penalties": {"frequency": 1.0, "bias": [[65, 3.0]]},
        "logprobs": chance.choice([0, 3, 1000]),
        "tokens": [chance.randrange(270) for _ in range(chance.randrange(6))],
        "positions": [chance.randrange(40) for _ in range(chance.randrange(6))],
        "masks": [[chance.randrange(3) for _ in range(3)] for _ in range(chance.randrange(4))],
        "logit_mask": chance.randrange(4),
        "samplers": [{"indices": [chance.randrange(4)], "sampler": result}],
        "draft_tokens": [chance.randrange(270)],
        "context": chance.randrange(5),
        "speculative_output": True,
        "unknown": 1,
    }
    kept = chance.choice([1, 2, 2, 3, 5])
    return json.dumps({name: some[name] for name in chance.sample(sorted(some), kept)})


TEXTS = ("", "x", "dummy", "other", "user", "kitchen", "json", "regex", "[]", "{}", '["a"]', "null", "a\0b", "é" * 200)


def texts(chance: random.Random) -> str:
    kinds = (lambda _: chance.choice(TEXTS), packed, request, lambda _: json.dumps(ZO))
    return chance.choice(kinds)(chance)


VALUES: dict[str, Callable[[random.Random], Any]] = {
    "int": numbers,
    "str": texts,
    "str | None": lambda chance: chance.choice([None, "named", ""]),
    "bool": lambda chance: chance.random() < 0.5,
    "float": lambda chance: chance.choice([0.0, 0.001, float("nan"), 1e-9]),
}


def calls(guest: Guest) -> list[tuple[str, Callable[..., Any], list[str]]]:
    found = []
    for interface, object_ in vars(guest.calls).items():
        for name, method in inspect.getmembers(object_, callable):
            if not name.startswith("_"):
                kinds = [str(it.annotation) for it in inspect.signature(method).parameters.values()]
                found.append((f"{interface}.{name}", method, kinds))
    return found


def error_of(method: Callable[..., Any], given: list[Any]) -> EngineError | InferletError | None:
    try:
        method(*given)
    except (EngineError, InferletError) as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(8))
def test_any_calls_in_any_order(make: Make, seed: int) -> None:
    chance, guest = random.Random(seed), make(contexts=8, waits=40, matchers=6, pages=400, children=3, queue=5)
    every = calls(guest)
    assert len(every) > 60
    model(guest)
    answered = set()
    for _ in range(1500):
        name, method, kinds = chance.choice(every)
        given = [VALUES[kind](chance) for kind in kinds]
        if name == "waits.take" and not is_ready(guest, given[0]):
            continue
        error = error_of(method, given)
        assert error is None or error.code != "inferlet_error", f"{name}{tuple(given)}: {error.detail}"
        answered |= {name} if error is None else set()
    assert len(answered) > 30
    for handle in list(guest.waits._waits):
        guest.calls.waits.drop(handle)
    other = make()
    assert len(generated(other, context(other), max_tokens=3)) == 3


def is_ready(guest: Guest, wait: int) -> bool:
    try:
        return bool(ready(guest, [wait]))
    except EngineError:
        return True


@pytest.mark.parametrize("wrong", [None, -1, 1.5, "1", b"x", [], {}, True, 2**40, "\udc80"])
def test_values_of_any_type_at_all(make: Make, wrong: Any) -> None:
    """A program outside the sandbox may pass what it likes."""
    guest = make()
    for name, method, kinds in calls(guest):
        if name == "waits.take" and not (type(wrong) is int and wrong > 0):
            continue
        error = error_of(method, [wrong] * len(kinds))
        if error is not None and error.code == "inferlet_error":
            assert "TypeError" in error.detail or "AttributeError" in error.detail, f"{name}: {error.detail}"
