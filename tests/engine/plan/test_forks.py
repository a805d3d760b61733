"""A fork equals its parent wherever it is taken, copies one page at most, and costs next to nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import permutations

import pytest

from bakehouse.engine.errors import StepFailed
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Rig, last_want

PROMPT = [1, 0, 2, 2, 1, 0, 1, 1, 2]


def fed(rig: Rig, tokens: list[int]) -> Context:
    context = rig.planner.contexts.create("")
    rig.feed(context, tokens)
    return context


def continued(rig: Rig, context: Context, token: int, count: int = 6) -> list[int]:
    """*context* goes on with *token* and then with what the fake device says."""
    tokens = [token]
    for _ in range(count):
        (outcome,) = rig.run(Pass("", context, tokens[-1:], wants=last_want(tokens[-1:])))
        assert outcome.error is None and isinstance(outcome.results[0].value, int)
        tokens.append(outcome.results[0].value)
    return tokens


def kv(rig: Rig, context: Context) -> list[object]:
    return [rig.device.at(context.pages, slot) for slot in range(context.computed)]


@pytest.mark.parametrize("length", range(1, 10))
def test_parent_child_and_a_fresh_context_go_on_alike(make_rig: MakeRig, length: int) -> None:
    rig, other = make_rig(), make_rig()
    parent = fed(rig, PROMPT[:length])
    parent.buffered.extend([1, 2])
    child = rig.planner.contexts.fork(parent)
    assert child.state() == replace(parent.state(), id=child.id)
    expected = continued(other, fed(other, PROMPT[:length]), 2)
    assert continued(rig, child, 2) == expected
    assert continued(rig, parent, 2) == expected


@pytest.mark.parametrize(("length", "copies"), [(4, 0), (5, 1), (7, 1), (8, 0)])
def test_only_the_partial_page_is_copied_and_nothing_is_computed_again(
    make_rig: MakeRig, length: int, copies: int
) -> None:
    rig = make_rig()
    parent = fed(rig, PROMPT[:length])
    child = rig.planner.contexts.fork(parent)
    assert child.pages == parent.pages
    rows = rig.device.rows
    rig.run(Pass("", child, [0]))
    assert rig.device.rows == rows + 1
    assert sum(len(step.plan.copies) for step in rig.steps) == copies
    rig.run(Pass("", parent, [1]))
    assert sum(len(step.plan.copies) for step in rig.steps) == copies, "the last holder writes its own page"


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_family_may_be_released_in_any_order(make_rig: MakeRig, order: tuple[int, ...]) -> None:
    rig = make_rig()
    family = [fed(rig, PROMPT[:6])]
    for _ in range(3):
        family.append(rig.planner.contexts.fork(family[-1]))  # a fork of a fork whose copy was not made yet
    before = kv(rig, family[0])
    for number, index in enumerate(order):
        rig.planner.contexts.release(family[index])
        rig.feed(rig.planner.contexts.create(""), [2] * 9)  # takes what was freed
        for left in order[number + 1 :]:
            assert kv(rig, family[left]) == before
    rig.planner.check_integrity()


def test_a_fork_of_a_parent_that_goes_on_before_the_copy(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = fed(rig, PROMPT[:6])
    child = rig.planner.contexts.fork(parent)
    before = kv(rig, child)
    rig.feed(parent, [2, 2, 2, 2, 2])
    rig.planner.contexts.release(parent)
    rig.feed(rig.planner.contexts.create(""), [0] * 30)
    assert kv(rig, child) == before


def test_a_fork_in_a_running_step_sees_the_state_before_it(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = fed(rig, PROMPT[:6])
    other = rig.planner.contexts.fork(parent)  # so that the parent writes to a copy
    before = kv(rig, parent)
    rig.submit(Pass("", parent, [0, 0, 0]))
    step = rig.planner.plan(0.0)
    assert len(step.plan.copies) == 1
    child = rig.planner.contexts.fork(parent)
    assert (child.length, child.cursor) == (6, 2)
    results = rig.device.run(step.plan)
    rig.planner.commit(step, results, 0.0)
    rig.planner.check_integrity()
    assert parent.length == 9 and kv(rig, child) == before == kv(rig, other)


def test_a_fork_in_a_step_that_fails_has_the_original_page(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = fed(rig, PROMPT[:6])
    rig.planner.contexts.fork(parent)
    before = kv(rig, parent)
    rig.submit(Pass("", parent, [0, 0, 0]))
    step = rig.planner.plan(0.0)
    child = rig.planner.contexts.fork(parent)
    rig.device.spoil(step.plan)
    ((_, outcome),) = rig.planner.fail(step, StepFailed("gone"))
    assert isinstance(outcome.error, StepFailed)
    rig.planner.check_integrity()
    assert kv(rig, child) == before == kv(rig, parent)


def test_a_fork_in_the_middle_of_a_chunked_pass_sees_the_state_before_the_pass(make_rig: MakeRig) -> None:
    rig = make_rig(prefill_chunk=4)
    parent = fed(rig, PROMPT[:6])
    before = kv(rig, parent)
    rig.submit(Pass("", parent, PROMPT))
    rig.step()
    rig.step()
    child = rig.planner.contexts.fork(parent)
    assert (child.length, child.committed_pages) == (6, 1)
    rig.drain()
    assert parent.length == 15 and kv(rig, child) == before
    rig.feed(child, [1])
    assert kv(rig, child)[:6] == before


def test_a_fork_of_a_context_that_was_put_aside(make_rig: MakeRig) -> None:
    rig, other = make_rig(), make_rig()
    parent = fed(rig, PROMPT[:6])
    rig.planner.contexts.put_aside(parent)
    child = rig.planner.contexts.fork(parent)
    assert child.pages == [] and child.state() == replace(parent.state(), id=child.id)
    assert continued(rig, child, 1) == continued(other, fed(other, PROMPT[:6]), 1) == continued(rig, parent, 1)


def test_positions_masks_and_adapters_are_inherited(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = rig.planner.contexts.create("")
    rig.run(Pass("", parent, [1, 2, 1], positions=[3, 7, 5], masks=[(3, 1), (3, 1, 3, 1), (5, 1)], adapter=2))
    child = rig.planner.contexts.fork(parent)
    assert (child.positions, child.last_position, child.pinned) == ([3, 7, 5], 7, True)
    assert child.visible == parent.visible and child.visible is not parent.visible


def test_a_fork_of_4096_tokens_takes_under_a_millisecond(make_rig: MakeRig) -> None:
    rig = make_rig(pages=300, page_size=16)
    parent = rig.planner.contexts.create("")
    rig.planner.submit(Pass("", parent, [7] * 4096))
    while not rig.planner.idle():
        rig.planner.commit(rig.planner.plan(0.0), [], 0.0)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        child = rig.planner.contexts.fork(parent)
        took.append(time.perf_counter() - start)
        rig.planner.contexts.release(child)
    assert min(took) < 0.001  # 0.02 ms where this was written
