"""Matchers and masks: what they allow, and that none is converted that needs not be."""

from __future__ import annotations

import json
import time
from itertools import cycle

import numpy as np
import pytest

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, NotFound
from bakehouse.inferlets.calls import masks
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.masks import Mask, bits_of, runs_of
from bakehouse.inferlets.calls.packing import pack, pack_ids, unpack_ids
from tests.inferlets.calls.support import Make, context, encoded, generated, items, model, start, taken


def matcher(guest: Guest, source: str = "(yes|no)!", kind: str = "regex") -> int:
    return int(taken(guest, guest.calls.grammars.create(model(guest), kind, source)))


def allowed(guest: Guest, which: int) -> set[str]:
    runs = unpack_ids(guest.calls.grammars.read_mask(which))
    at, found = 0, set()
    for run, state in zip(runs, cycle((False, True)), strict=False):
        found |= set(range(at, at + run)) if state else set()
        at += run
    assert at == json.loads(guest.calls.models.info(model(guest)))["vocab_size"]
    return {guest.calls.models.decode(model(guest), pack_ids([token])) for token in found}


def test_a_matcher_steps_and_its_mask_says_what_may_come(guest: Guest) -> None:
    grammars, which = guest.calls.grammars, matcher(guest)
    assert allowed(guest, grammars.next_mask(which)) == {"y", "n"}
    grammars.accept(which, encoded(guest, "no"))
    assert allowed(guest, grammars.next_mask(which)) == {"!"}
    assert not grammars.terminated(which)
    with pytest.raises(BadRequest, match="tokens"):
        grammars.accept(which, encoded(guest, "?"))
    grammars.accept(which, encoded(guest, "!<|im_end|>"))
    assert grammars.terminated(which)
    assert allowed(guest, grammars.next_mask(which)) == set()
    grammars.reset(which)
    assert not grammars.terminated(which)
    grammars.release(which)
    with pytest.raises(NotFound, match="matcher"):
        grammars.next_mask(which)


def test_a_loop_of_masks_is_what_the_engine_does_by_itself(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars, source = guest.calls.grammars, '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'
    stepped = matcher(guest, source, "json_schema")
    expected = generated(guest, context(guest), stop=None, matcher=stepped, max_tokens=30)
    which, follower, found = context(guest), matcher(guest, source, "json_schema"), []

    def fail(*_: object) -> bytes:
        raise AssertionError("a mask was converted on its way")

    monkeypatch.setattr(masks, "bits_of", fail)
    monkeypatch.setattr(masks, "runs_of", fail)
    while len(found) < 30:
        mask = grammars.next_mask(follower)
        tokens = generated(guest, which, stop=None, mask=mask, max_tokens=1)
        grammars.release_mask(mask)
        if not tokens:
            break
        grammars.accept(follower, pack_ids(tokens))
        found += tokens
    assert found == expected


def test_a_matcher_is_stepped_by_a_generation(guest: Guest) -> None:
    which = matcher(guest)
    (item,) = items(guest, start(guest, context(guest), stop=None, matcher=which, decode={}, whole=True))
    assert item["events"][-1][1] in ("yes!", "no!")
    # The stop token that ended the text is not among what was yielded.
    assert allowed(guest, guest.calls.grammars.next_mask(which)) >= {"<|im_end|>"}


def test_a_matcher_for_tools(guest: Guest) -> None:
    tool = json.dumps({"name": "weather", "parameters": {"type": "object", "properties": {}}})
    which = int(taken(guest, guest.calls.grammars.create_for_tools(model(guest), json.dumps([tool]))))
    assert allowed(guest, guest.calls.grammars.next_mask(which)) == {"<tool_call>"}
    with pytest.raises(BadRequest, match="tools"):
        guest.calls.grammars.create_for_tools(model(guest), "[1]")


def test_a_grammar_that_is_none_is_told(guest: Guest) -> None:
    with pytest.raises(BadRequest, match="grammar"):
        matcher(guest, "(")
    with pytest.raises(BadRequest, match="kind"):
        matcher(guest, "x", "haiku")


def test_a_mask_of_runs_restricts_and_an_empty_one_does_not(guest: Guest) -> None:
    grammars = guest.calls.grammars
    only = grammars.create_mask(pack_ids([65, 1, 3, 0, 100000]))
    assert generated(guest, context(guest), mask=only, max_tokens=3) == [65] * 3
    free = grammars.create_mask("")
    assert generated(guest, context(guest), mask=free, max_tokens=9) == generated(guest, context(guest), max_tokens=9)
    nothing = grammars.create_mask(pack_ids([1000]))
    with pytest.raises(BadRequest, match="allows no id"):
        start(guest, context(guest), mask=nothing)
    assert unpack_ids(grammars.read_mask(only)).tolist() == [65, 1, 3, 0, 100000]
    with pytest.raises(BadRequest, match="give one of"):
        start(guest, context(guest), mask=only, matcher=matcher(guest))
    with pytest.raises(BadRequest, match="runs"):
        grammars.create_mask("abc")


def test_what_was_dropped_while_it_compiled_is_freed(make: Make) -> None:
    guest = make(matchers=2)
    for _ in range(5):
        guest.calls.waits.drop(guest.calls.grammars.create(model(guest), "regex", "(a|b){3}"))
    kept = [matcher(guest) for _ in range(2)]
    for which in kept:
        guest.calls.grammars.release(which)


def test_masks_of_other_models_are_refused(guest: Guest) -> None:
    mask = guest.masks.add(Mask(bits=bytes(400), size=3200))
    with pytest.raises(BadRequest, match="3200 ids"):
        start(guest, context(guest), mask=mask)


# The two forms


@pytest.mark.parametrize("seed", range(20))
def test_bits_and_runs_say_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 400))
    runs = [int(run) for run in random.integers(0, 9, int(random.integers(1, 80)))]
    bits = bits_of(packed(runs), size)
    assert bits == brle.to_bits(runs, size)
    back = unpack_ids(pack(runs_of(bits, size))).tolist()
    assert sum(back) == size
    assert brle.normal(back) == brle.from_bits(bits, size)


def packed(runs: list[int]) -> bytes:
    return pack_ids(runs).encode("latin-1")


@pytest.mark.parametrize("runs", [[2**32 - 1] * 100, [0] * 100, [0, 2**32 - 1, 5, 5], [5]])
def test_runs_of_any_length_are_cut_at_the_vocabulary(runs: list[int]) -> None:
    assert bits_of(packed(runs), 100) == brle.to_bits(runs, 100)


def test_a_mask_of_150_000_entries_is_converted_in_about_a_millisecond() -> None:
    """Every second id: the longest list that such a mask can have. The bounds leave room for a machine in use."""
    size = 150_000
    runs = np.ones(size, "<u4").tobytes()
    bits = bits_of(runs, size)
    assert fastest(lambda: Mask(runs=runs).packed(size)) < 0.005
    mask = Mask(bits=bits, size=size)
    assert fastest(lambda: pack(mask.read())) < 0.005
    assert fastest(lambda: mask.packed(size)) < 0.0001


def fastest(call: object) -> float:
    """Seconds, of the fastest of several: the machine has others to serve."""
    assert callable(call)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
