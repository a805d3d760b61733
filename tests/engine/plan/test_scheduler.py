"""Who runs when: budgets, priorities, fairness, deadlines, cancelling, putting aside, and that all of it ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bakehouse.engine.errors import BadRequest, DeadlineExceeded, LimitExceeded, OutOfPages, StepFailed
from bakehouse.engine.params import GREEDY
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.plan.scheduler import REMEMBERED, Fairness
from bakehouse.engine.plan.step import StepPlan
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Naive, Rig, last_want


def distinct(count: int, number: int) -> list[int]:
    """A prompt that shares no page with that of another *number*."""
    return [1000 * (number + 1) + place for place in range(count)]


def alone(count: int, number: int = 0, owner: str = "", **more: Any) -> Pass:
    tokens = distinct(count, number)
    return Pass(owner, None, tokens, wants=last_want(tokens), **more)


class Stream:
    """A program that decodes for ever."""

    def __init__(self, rig: Rig, number: int, owner: str = "", prompt: int = 1, priority: int = 0) -> None:
        self.rig, self.owner, self.number, self.priority = rig, owner, number, priority
        self.context = rig.planner.contexts.create(owner)
        self.tokens = 0
        self.current = self.send(distinct(prompt, number))

    def send(self, tokens: list[int]) -> Pass:
        pass_ = Pass(
            self.owner, self.context, tokens, wants=last_want(tokens), stream=self.number + 1, priority=self.priority
        )
        self.rig.submit(pass_)
        self.current = pass_
        return pass_

    def go_on(self) -> None:
        """The next pass, when the current one is over."""
        outcome = self.rig.outcomes.get(self.current)
        if outcome is not None:
            assert outcome.error is None, outcome.error
            self.tokens += 1
            value = outcome.results[0].value
            assert isinstance(value, int)
            self.send([value])


def steps(rig: Rig, count: int, *streams: Stream) -> None:
    for _ in range(count):
        rig.step()
        for stream in streams:
            stream.go_on()


def end(rig: Rig, *streams: Stream) -> None:
    for stream in streams:
        rig.planner.cancel(stream.current)
    rig.drain()


# Budgets


def test_a_prefill_is_cut_into_chunks_that_end_at_pages(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=100, prefill_chunk=10)
    (outcome,) = rig.run(alone(27))
    assert [len(step.plan.tokens) for step in rig.steps] == [8, 8, 8, 3]
    assert outcome == Naive().run(alone(27))


def test_a_step_has_so_many_tokens_and_results(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=16, max_step_rows=3)
    rig.run(*(alone(5, number) for number in range(9)))
    assert max(len(step.plan.tokens) for step in rig.steps) == 16
    assert max(len(step.plan.readouts) for step in rig.steps) <= 3


def test_more_results_than_a_step_gives_come_in_several(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_rows=3)
    tokens = distinct(10, 0)
    wants = [Want(index, GREEDY) for index in (9, 0, 3, 3, 8, 1, 9, 9)]
    pass_ = Pass("", None, tokens, wants=wants)
    (outcome,) = rig.run(pass_)
    assert outcome == Naive().run(pass_)
    assert len(rig.steps) > 2
    (outcome,) = rig.run(Pass("", None, tokens, wants=[Want(2, GREEDY)] * 4))
    assert isinstance(outcome.error, LimitExceeded)


def test_decodes_go_on_beside_a_long_prefill(make_rig: MakeRig) -> None:
    rig = make_rig(pages=100, max_step_tokens=16, prefill_chunk=8)
    streams = [Stream(rig, number) for number in range(3)]
    steps(rig, 1, *streams)
    rig.submit(alone(200, 7))
    steps(rig, 20, *streams)
    assert [stream.tokens for stream in streams] == [21] * 3
    assert rig.planner.counters.rows == 3 + 20 * (3 + 8)
    end(rig, *streams)


def test_many_decodes_do_not_starve_a_prefill(make_rig: MakeRig) -> None:
    rig = make_rig(pages=200, max_step_tokens=8)
    streams = [Stream(rig, number) for number in range(20)]
    prefill = alone(40, 99)
    steps(rig, 10, *streams)
    rig.submit(prefill)
    steps(rig, 40, *streams)
    assert rig.outcomes[prefill].error is None
    served = [stream.tokens for stream in streams]
    assert max(served) - min(served) <= 1, "and the decodes that do not fit take turns"
    end(rig, *streams)


def test_rows_that_look_forward_run_in_one_step_even_when_steps_are_full(make_rig: MakeRig) -> None:
    rig = make_rig(pages=200, max_step_tokens=8, prefill_chunk=2)
    streams = [Stream(rig, number) for number in range(20)]
    tokens = distinct(8, 99)
    both_ways = Pass("", rig.planner.contexts.create(""), tokens, masks=[(0, 8)] * 8, wants=last_want(tokens))
    steps(rig, 3, *streams)
    rig.submit(both_ways)
    steps(rig, 6, *streams)
    assert rig.outcomes[both_ways] == Naive().run(both_ways)
    too_long = Pass("", None, distinct(9, 98), masks=[(0, 9)] * 9)
    rig.submit(too_long)
    steps(rig, 3, *streams)
    assert isinstance(rig.outcomes[too_long].error, LimitExceeded)
    end(rig, *streams)


def test_passes_of_one_context_run_one_after_the_other(make_rig: MakeRig) -> None:
    rig = make_rig()
    context, naive = rig.planner.contexts.create(""), Naive()
    passes = [Pass("", context, [number, 1], wants=last_want([1, 1])) for number in range(5)]
    rig.submit(*passes)
    for number in range(5):
        rig.step()
        assert set(rig.outcomes) == set(passes[: number + 1])
        assert rig.outcomes[passes[number]] == naive.run(passes[number])


# Priorities


def test_the_higher_priority_goes_first(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=4)
    low, high = alone(12, 1), alone(12, 2, priority=1)
    rig.submit(low, high)
    steps(rig, 3)
    assert set(rig.outcomes) == {high}


def test_waiting_makes_urgent(make_rig: MakeRig) -> None:
    rig = make_rig(pages=200, max_step_tokens=4, aging=10)
    low = alone(8, 1)
    rig.submit(low)
    stream = 2
    for _ in range(30):
        rig.submit(alone(4, stream, priority=1))
        rig.step()
        stream += 1
        rig.now += 1
        if low in rig.outcomes:
            break
    assert low in rig.outcomes and rig.now >= 10


def test_who_waits_behind_a_pass_lends_it_its_priority(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=4)
    context = rig.planner.contexts.create("")
    low, urgent = Pass("", context, distinct(8, 1)), Pass("", context, [1], priority=5)
    middle = alone(40, 2, priority=3)
    rig.submit(low, middle, urgent)
    steps(rig, 3)
    assert urgent in rig.outcomes and middle not in rig.outcomes


# Fairness


def test_owners_share_a_full_engine_whatever_they_ask(make_rig: MakeRig) -> None:
    rig = make_rig(pages=400, max_step_tokens=8)
    many = [Stream(rig, number, "many") for number in range(24)]
    few = [Stream(rig, 100 + number, "few") for number in range(6)]
    steps(rig, 60, *many, *few)
    tokens = Counter({"many": sum(s.tokens for s in many), "few": sum(s.tokens for s in few)})
    assert abs(tokens["many"] - tokens["few"]) <= 20
    assert tokens.total() > 400
    end(rig, *many, *few)


def test_prefills_of_one_owner_do_not_delay_anothers(make_rig: MakeRig) -> None:
    rig = make_rig(pages=400, max_step_tokens=8)
    flood = [alone(40, number, "flood") for number in range(20)]
    rig.submit(*flood)
    steps(rig, 5)
    one = alone(16, 50, "one")
    rig.submit(one)
    before = len(rig.steps)
    while one not in rig.outcomes:
        rig.step()
    assert len(rig.steps) - before <= 5


def test_a_newcomer_gets_no_credit_for_its_absence(make_rig: MakeRig) -> None:
    rig = make_rig(pages=400, max_step_tokens=4)
    old = [Stream(rig, number, "old") for number in range(8)]
    steps(rig, 100, *old)
    new = [Stream(rig, 100 + number, "new") for number in range(8)]
    before = sum(stream.tokens for stream in old)
    steps(rig, 20, *old, *new)
    served = sum(stream.tokens for stream in old) - before
    assert 30 <= served <= 50, "half of 80 rows"
    end(rig, *old, *new)


def test_owners_who_left_are_forgotten_in_time() -> None:
    fairness = Fairness()
    for number in range(3 * REMEMBERED):
        owner = f"owner {number}"
        fairness.enter(owner)
        fairness.charge(owner, 1)
        fairness.served({owner})
        fairness.leave(owner)
    assert len(fairness._time) <= REMEMBERED + 1


# Deadlines and cancelling


def test_a_deadline_that_passes_while_waiting(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=4)
    late = alone(12, deadline=1.0)
    rig.submit(late)
    rig.step()
    rig.now = 1.5
    assert rig.step().parts == []
    assert isinstance(rig.outcomes[late].error, DeadlineExceeded)
    assert rig.planner.idle() and rig.planner.pages.held == 0


def test_a_deadline_that_passes_during_the_step(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    rig.feed(context, [1, 2])
    rig.submit(Pass("", context, [1, 2, 0], wants=last_want([1, 2, 0]), deadline=1.0))
    step = rig.planner.plan(0.5)
    ((_, outcome),) = rig.planner.commit(step, rig.device.run(step.plan), 1.5)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert (context.length, context.committed_pages) == (2, 0)


@pytest.mark.parametrize("when", ["before", "between chunks", "in the step", "after"])
def test_cancel_at_any_time_leaves_the_context_as_it_was(make_rig: MakeRig, when: str) -> None:
    rig = make_rig(prefill_chunk=8)
    context, naive = rig.planner.contexts.create(""), Naive()
    first = Pass("", context, [1, 2, 0, 1, 1, 2], wants=last_want([0] * 6))
    assert rig.run(first) == [naive.run(first)]
    state = context.state()
    doomed = Pass("", context, distinct(20, 3), wants=last_want([0] * 20))
    behind = Pass("", context, [2, 2], wants=last_want([2, 2]))
    rig.submit(doomed, behind)
    if when != "before":
        rig.step()
    if when == "in the step":
        step = rig.planner.plan(0.0)
        rig.planner.cancel(doomed)
        rig.outcomes.update(rig.planner.commit(step, rig.device.run(step.plan), 0.0))
    elif when == "after":
        while doomed not in rig.outcomes:
            rig.step()
        naive.run(doomed)
        rig.planner.cancel(doomed)
    else:
        assert context.state() == state
        rig.planner.cancel(doomed)
    rig.drain()
    assert (when == "after") == (rig.outcomes[doomed].error is None)
    assert rig.outcomes[behind] == naive.run(behind)


def test_a_failed_step_ends_its_passes_and_nothing_else(make_rig: MakeRig) -> None:
    rig = make_rig(max_step_tokens=8)
    contexts = [rig.planner.contexts.create("") for _ in range(3)]
    naives = [Naive() for _ in contexts]
    for number, (context, naive) in enumerate(zip(contexts, naives, strict=True)):
        pass_ = Pass("", context, distinct(5, number), wants=last_want([0] * 5))
        assert rig.run(pass_) == [naive.run(pass_)]
    passes = [Pass("", context, [number] * 3, wants=last_want([0] * 3)) for number, context in enumerate(contexts)]
    rig.submit(*passes)
    step = rig.planner.plan(0.0)
    assert len(step.parts) == 3
    rig.device.spoil(step.plan)
    for _, outcome in rig.planner.fail(step, StepFailed("gone")):
        assert isinstance(outcome.error, StepFailed)
    rig.planner.check_integrity()
    again = [Pass("", context, [number] * 3, wants=last_want([0] * 3)) for number, context in enumerate(contexts)]
    assert rig.run(*again) == [naive.run(pass_) for naive, pass_ in zip(naives, again, strict=True)]


def test_steps_are_planned_one_at_a_time(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.submit(alone(3))
    step = rig.planner.plan(0.0)
    with pytest.raises(RuntimeError):
        rig.planner.plan(0.0)
    rig.planner.commit(step, rig.device.run(step.plan), 0.0)
    with pytest.raises(RuntimeError):
        rig.planner.commit(step, [], 0.0)


# A pool that is too small


def test_more_streams_than_pages_all_get_on_and_all_are_right(make_rig: MakeRig) -> None:
    rig = make_rig(pages=12, max_step_tokens=16, prefill_chunk=8)
    streams = [Stream(rig, number, prompt=6) for number in range(6)]
    naives = [Naive() for _ in streams]
    checked: set[Pass] = set()
    for _ in range(400):
        rig.step()
        for stream, naive in zip(streams, naives, strict=True):
            if stream.current in rig.outcomes and stream.current not in checked:
                checked.add(stream.current)
                assert rig.outcomes[stream.current] == naive.run(stream.current)
                if stream.tokens < 20:
                    stream.go_on()
        if all(stream.tokens == 20 for stream in streams):
            break
    assert [stream.tokens for stream in streams] == [20] * 6
    assert rig.planner.preemptions > 0 and rig.planner.counters.recomputed > 0


def test_idle_contexts_make_room_and_are_computed_again(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8)
    contexts = [rig.planner.contexts.create("") for _ in range(6)]
    for number, context in enumerate(contexts):
        rig.feed(context, distinct(10, number))
        assert context.state().committed_pages == 2
    assert rig.planner.preemptions == 4
    for number, context in enumerate(contexts):
        naive = Naive()
        naive.run(Pass("", None, distinct(10, number)))
        pass_ = Pass("", context, [1], wants=last_want([1]))
        assert rig.run(pass_) == [naive.run(pass_)]
        assert context.length == 11


def test_a_newer_pass_does_not_put_an_older_one_aside(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8, max_step_tokens=8)
    old = Stream(rig, 1, prompt=20)
    steps(rig, 4, old)
    new = Stream(rig, 2, prompt=20)
    steps(rig, 7, old, new)
    assert old.tokens >= 7 and new.tokens == 0 and rig.planner.preemptions == 0
    rig.planner.cancel(old.current)
    steps(rig, 2)
    rig.planner.contexts.release(old.context)
    steps(rig, 3, new)
    assert new.tokens >= 1
    end(rig, new)


def test_a_more_urgent_pass_puts_a_less_urgent_one_aside(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8, max_step_tokens=8)
    low = Stream(rig, 1, prompt=20)
    steps(rig, 5, low)
    high = alone(20, 3, priority=1)
    rig.submit(high)
    steps(rig, 6, low)
    assert rig.outcomes[high].error is None and rig.planner.preemptions == 1
    before = low.tokens
    steps(rig, 8, low)
    assert low.tokens > before
    end(rig, low)


def test_a_pass_that_can_never_fit(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8)
    (outcome,) = rig.run(alone(33))
    assert isinstance(outcome.error, OutOfPages)
    assert "needs 9 pages of 4 tokens, there are 8" in str(outcome.error)


def test_contexts_that_cannot_be_recomputed_stay(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8)
    pinned: list[Context] = []
    for kind in ({"adapter": 1}, {"masks": [(0, 10)] * 10}):
        context = rig.planner.contexts.create("")
        (outcome,) = rig.run(Pass("", context, distinct(10, len(pinned)), **kind))  # type: ignore[arg-type]
        assert outcome.error is None and context.pinned
        pinned.append(context)
    (outcome,) = rig.run(alone(12, 5))
    assert isinstance(outcome.error, OutOfPages)
    assert "3 more pages are needed; of 8 only 2 are free" in str(outcome.error)
    assert [len(context.pages) for context in pinned] == [3, 3]
    (outcome,) = rig.run(alone(8, 5))
    assert outcome.error is None
    rig.planner.contexts.release(pinned[0])
    (outcome,) = rig.run(alone(12, 5))
    assert outcome.error is None


def test_a_context_with_a_family_of_forks_can_be_put_aside(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8)
    parent = rig.planner.contexts.create("")
    rig.feed(parent, distinct(16, 1))
    family = [parent, *(rig.planner.contexts.fork(parent) for _ in range(4))]
    (outcome,) = rig.run(alone(30, 2))
    assert outcome.error is None
    assert all(context.computed == 0 for context in family)
    rig.feed(family[3], [1])
    assert family[3].computed == 17


# Always the same


def test_equal_calls_give_equal_plans() -> None:
    def plans() -> list[StepPlan]:
        rig = Rig(Planner(PlanLimits(pages=24, page_size=4, max_step_tokens=16, prefill_chunk=8)))
        streams = [Stream(rig, number, f"owner {number % 3}", prompt=3 * number + 1) for number in range(6)]
        for number in range(60):
            rig.step()
            for stream in streams:
                stream.go_on()
            if number % 7 == 0:
                rig.submit(alone(9, number, "x", priority=number % 2))
            if number % 11 == 0:
                rig.planner.contexts.fork(streams[number % 6].context)
        assert rig.planner.preemptions
        return [step.plan for step in rig.steps]

    first = plans()
    assert first == plans() and sum(len(plan.tokens) for plan in first) > 300


# What cannot be meant


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("tokens", {"tokens": []}),
        ("tokens", {"tokens": [1, -1]}),
        ("tokens", {"tokens": [1, 2**31]}),
        ("positions", {"tokens": [1, 2], "positions": [1]}),
        ("positions", {"tokens": [1, 2], "positions": [0, -1]}),
        ("positions", {"tokens": [1, 2], "positions": [0, 2**31]}),
        ("positions", {"tokens": [1] * 2000, "positions": list(range(2000, 0, -1))}),
        ("masks", {"tokens": [1, 2], "masks": [(0, 1)]}),
        ("masks[1]", {"tokens": [1, 2], "masks": [(0, 1), (7,)]}),
        ("samplers.indices", {"tokens": [1, 2], "wants": [Want(2, GREEDY)]}),
    ],
)
def test_a_pass_that_makes_no_sense_is_refused_by_field(make_rig: MakeRig, field: str, shape: dict[str, Any]) -> None:
    rig = make_rig(pages=600, max_step_tokens=4000)
    context = rig.planner.contexts.create("")
    rig.feed(context, [1, 2])
    (outcome,) = rig.run(Pass("", context, **shape))
    assert isinstance(outcome.error, BadRequest) and outcome.error.field == field
    assert context.length == 2
