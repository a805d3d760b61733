"""Random programs against the naive model: contexts, passes and steps in any order, in a pool that is too small."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bakehouse.engine.brle import from_bools
from bakehouse.engine.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    LimitExceeded,
    NameTaken,
    OutOfPages,
    StepFailed,
)
from bakehouse.engine.params import GREEDY
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.passes import Outcome, Pass, Want
from bakehouse.engine.plan.planner import Planner
from tests.engine.plan.fake import VOCABULARY, FakeDevice, Naive

LIMITS = PlanLimits(
    pages=24, page_size=4, max_step_tokens=24, max_step_rows=8, prefill_chunk=10, max_contexts=8, aging=5
)
OWNERS = ("ann", "bob")
PROGRAMS = ("p", "q")


@st.composite
def pass_shapes(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 8, 9, 13, 17, 30]))
    kind = draw(st.sampled_from(["plain"] * 6 + ["masks", "window", "positions", "forward", "adapter"]))
    return {
        "kind": kind,
        "tokens": draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)),
        "wants": draw(st.lists(st.integers(0, count - 1), max_size=3)),
        "last": draw(st.booleans()),
        "drafts": draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=6)) if draw(st.booleans()) else [],
        "noise": draw(st.integers(0, 2**32)),
        "priority": draw(st.sampled_from([0, 0, 0, 1, 5])),
        "deadline": draw(st.sampled_from([None, None, None, 1, 4])),
        "stream": draw(st.integers(0, 2)),
        "owner": draw(st.sampled_from(OWNERS)),
        "alone": draw(st.integers(0, 9)) == 0,
    }


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.planner = Planner(LIMITS)
        self.device = FakeDevice(LIMITS.page_size)
        self.naive: dict[Context, Naive] = {}
        self.passes: dict[Pass, Naive | None] = {}  # those that are not over; None for one whose context was released
        self.now = 0.0
        self.checked: set[Context] = set()
        for program in PROGRAMS:  # so that their pages are counted, which `check_integrity` checks
            self.planner.contexts.charges.allow(program, 10**6)

    # What programs do

    @initialize(shapes=st.lists(pass_shapes(), min_size=2, max_size=3))
    def some_contexts(self, shapes: list[dict[str, Any]]) -> None:
        for number, shape in enumerate(shapes):
            self.create(OWNERS[number % 2], None, PROGRAMS[number % 2])
            self.run_now(number, shape)

    @rule(number=st.integers(0, 20), shape=pass_shapes())
    def run_now(self, number: int, shape: dict[str, Any]) -> None:
        self.submit(number, shape)
        self.settle()

    @rule()
    def settle(self) -> None:
        """Everything that waits is run."""
        if self.planner.running is not None:
            self.commit()
        for _ in range(300):
            if self.planner.idle():
                break
            self.one_step()
        assert self.planner.idle() and not self.passes

    @rule(parent=st.integers(0, 20), shape=pass_shapes(), other=pass_shapes())
    def fork_and_run_both(self, parent: int, shape: dict[str, Any], other: dict[str, Any]) -> None:
        self.settle()
        before = set(self.naive)
        self.fork(parent, None, "p")
        for child in set(self.naive) - before:
            self.submit(parent, shape)
            self.submit(list(self.naive).index(child), other)

    def some(self, number: int) -> Context | None:
        contexts = list(self.naive)
        return contexts[number % len(contexts)] if contexts else None

    @rule(
        owner=st.sampled_from(OWNERS),
        name=st.sampled_from([None, None, "x", "y"]),
        program=st.sampled_from(PROGRAMS),
    )
    def create(self, owner: str, name: str | None, program: str) -> None:
        try:
            context = self.planner.contexts.create(owner, name, program)
        except LimitExceeded:
            assert len(self.planner.contexts) >= LIMITS.max_contexts * 3 // 4
            return
        self.naive[context] = Naive()
        assert name is None or self.planner.contexts.lookup(owner, name, program) is context
        self.forget_released()

    @rule(number=st.integers(0, 20), name=st.sampled_from([None, None, "x"]), program=st.sampled_from(PROGRAMS))
    def fork(self, number: int, name: str | None, program: str) -> None:
        context = self.some(number)
        if context is None:
            return
        context.buffered.append(number)
        try:
            child = self.planner.contexts.fork(context, name, program)
        except LimitExceeded:
            return
        except NameTaken:
            held = self.planner.contexts.lookup(context.owner, name or "", program)
            assert held is not None and held.programs
            return
        assert child.buffered == context.buffered and child.buffered is not context.buffered
        self.naive[child] = self.naive[context].copy()
        self.forget_released()

    @rule(number=st.integers(0, 20))
    def release(self, number: int) -> None:
        context = self.some(number)
        if context is not None:
            self.planner.contexts.release(context)
            self.forget_released()

    @rule(program=st.sampled_from(PROGRAMS))
    def end_program(self, program: str) -> None:
        named = {context for context in self.naive if context.name is not None}
        self.planner.contexts.end_program(program)
        assert not any(context.released for context in named)
        assert not any(program in context.programs for context in self.planner.contexts.contexts.values())
        self.planner.contexts.charges.allow(program, 10**6)
        self.forget_released()

    def forget_released(self) -> None:
        for context in [context for context in self.naive if context.released]:
            del self.naive[context]
            assert not context.pages
        assert set(self.naive) == set(self.planner.contexts.contexts.values())

    @rule(number=st.integers(0, 20), shape=pass_shapes())
    def submit(self, number: int, shape: dict[str, Any]) -> None:
        context = None if shape["alone"] else self.some(number)
        pass_ = self.make(context, shape)
        self.planner.submit(pass_)
        self.passes[pass_] = None

    def make(self, context: Context | None, shape: dict[str, Any]) -> Pass:
        tokens, drafts = shape["tokens"], shape["drafts"]
        wants = [Want(index, GREEDY) for index in shape["wants"]]
        if shape["last"] or drafts:
            wants.append(Want(len(tokens) - 1, GREEDY))
        pass_ = Pass(
            shape["owner"] if context is None else context.owner,
            context,
            tokens,
            wants=wants,
            drafts=drafts,
            priority=shape["priority"],
            deadline=None if shape["deadline"] is None else self.now + shape["deadline"],
            stream=shape["stream"],
        )
        count, noise = len(tokens) + len(drafts), shape["noise"]
        start = 0 if context is None or context.busy else self.naive[context].last + 1
        if shape["kind"] == "positions":
            places = [start + (noise >> number) % 4 + number for number in range(count)]
            pass_.positions, pass_.draft_positions = places[: len(tokens)], places[len(tokens) :]
        elif shape["kind"] == "adapter":
            pass_.adapter, pass_.zo_seed = noise % 2, noise % 3
        elif shape["kind"] in ("masks", "window", "forward"):
            pass_.masks = [self.mask(shape["kind"], start + number, start + count, noise) for number in range(count)]
        return pass_

    @staticmethod
    def mask(kind: str, position: int, end: int, noise: int) -> tuple[int, ...]:
        if kind == "window":
            return from_bools(max(position - 3, 1) <= p <= position or p == 0 for p in range(end))
        if kind == "masks":  # holes, and now and then plain causal order spelt out
            return from_bools(
                p <= position and (p == position or noise % 3 == 0 or noise >> p % 32 & 1) for p in range(end)
            )
        return from_bools(p == position or noise >> p % 32 & 1 for p in range(end + 3))

    @rule(number=st.integers(0, 20), count=st.integers(0, 9))
    def set_cursor(self, number: int, count: int) -> None:
        context = self.some(number)
        if context is None:
            return
        committed, cursor = context.committed_pages, context.cursor
        try:
            context.set_cursor(count)
        except BadRequest:
            assert context.busy or count > cursor
            return
        del self.naive[context].entries[committed * LIMITS.page_size + count :]
        assert context.cursor == count and context.committed_pages == committed

    @rule(number=st.integers(0, 20), count=st.integers(0, 12))
    def rewind(self, number: int, count: int) -> None:
        context = self.some(number)
        if context is None:
            return
        entries = self.naive[context].entries
        try:
            context.rewind(count)
        except BadRequest:
            assert context.busy or count > len(entries)
            return
        del entries[len(entries) - count :]

    @rule(number=st.integers(0, 20), count=st.integers(0, 4))
    def reserve_pages(self, number: int, count: int) -> None:
        context = self.some(number)
        if context is None:
            return
        try:
            context.reserve_pages(count)
        except (OutOfPages, LimitExceeded):
            return
        assert context.uncommitted_pages >= count

    @rule(number=st.integers(0, 20), count=st.integers(0, 3))
    def release_pages(self, number: int, count: int) -> None:
        context = self.some(number)
        if context is None:
            return
        before, entries, cursor = context.uncommitted_pages, self.naive[context].entries, context.cursor
        try:
            context.release_pages(count)
        except BadRequest:
            assert context.busy or count > before
            return
        del entries[len(entries) - min(count * LIMITS.page_size, cursor) :]

    @rule(number=st.integers(0, 20), order=st.permutations(range(3)), count=st.integers(0, 3))
    def commit_pages(self, number: int, order: list[int], count: int) -> None:
        context = self.some(number)
        if context is None:
            return
        committed, full = context.committed_pages, context.cursor // LIMITS.page_size
        indices = [index for index in order if index < full][:count]
        try:
            context.commit_pages(indices)
        except (BadRequest, LimitExceeded):
            return
        assert context.committed_pages == committed + len(indices)
        size, entries = LIMITS.page_size, self.naive[context].entries
        rest = [index for index in range(len(entries) // size + 1 - committed) if index not in indices]
        pages = [*range(committed), *(committed + index for index in (*indices, *rest))]
        self.naive[context].entries = [entry for page in pages for entry in entries[page * size : (page + 1) * size]]

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        if self.passes:
            self.planner.cancel(list(self.passes)[number % len(self.passes)])

    # What the loop does

    @rule(seconds=st.sampled_from([0, 1, 2, 10]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.planner.running is None)
    @rule()
    def plan(self) -> None:
        step = self.planner.plan(self.now)
        assert len(step.plan.tokens) <= LIMITS.max_step_tokens
        assert len(step.plan.readouts) <= LIMITS.max_step_rows
        for pass_, error in step.failed:
            self.over(pass_, Outcome(error=error))
        self.drafts_run = {part.pass_: part.drafts for part in step.parts}
        if step.parts:
            self.results = self.device.run(step.plan)

    @precondition(lambda self: self.planner.running is not None)
    @rule()
    def commit(self) -> None:
        assert self.planner.running is not None
        for pass_, outcome in self.planner.commit(self.planner.running, self.results, self.now):
            self.over(pass_, outcome)

    @precondition(lambda self: self.planner.running is not None)
    @rule()
    def fail(self) -> None:
        step = self.planner.running
        assert step is not None
        self.device.spoil(step.plan)
        for pass_, outcome in self.planner.fail(step, StepFailed("the device is gone")):
            assert outcome.error is not None
            self.over(pass_, outcome)

    @precondition(lambda self: self.planner.running is None)
    @rule()
    def one_step(self) -> None:
        self.plan()
        if self.planner.running is not None:
            self.commit()

    def over(self, pass_: Pass, outcome: Outcome) -> None:
        del self.passes[pass_]
        if outcome.error is not None:
            assert isinstance(
                outcome.error, Cancelled | DeadlineExceeded | OutOfPages | LimitExceeded | BadRequest | StepFailed
            )
            assert not isinstance(outcome.error, DeadlineExceeded) or self.now > (pass_.deadline or 0)
            return
        naive = Naive() if pass_.context is None else self.naive[pass_.context]
        assert outcome == naive.run(pass_, self.drafts_run[pass_])

    # What must hold at all times

    @invariant()
    def books_are_right(self) -> None:
        self.planner.check_integrity()

    @invariant()
    def contexts_are_as_they_should_be(self) -> None:
        for context, naive in self.naive.items():
            assert list(context.tokens) == [entry.token for entry in naive.entries]
            assert context.last_position == (naive.last if naive.entries else None)
            if context.part is not None:
                continue  # its pages are being copied or written
            for slot in range(min(context.computed, context.length)):
                assert self.device.at(context.pages, slot) == naive.entries[slot]

    def teardown(self) -> None:
        self.settle()
        for context in list(self.naive):
            self.planner.contexts.release(context)
        self.planner.check_integrity()
        assert self.planner.pages.held == 0
        self.planner.pages.forget_cached()
        assert self.planner.pages.free == LIMITS.pages


def how(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


TestMachine = Machine.TestCase
TestMachine.settings = how(30)


@pytest.mark.slow
def test_machine_for_long() -> None:
    run_state_machine_as_test(Machine, settings=how(2000))
