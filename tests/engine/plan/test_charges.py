"""How many pages a program may have: counted by its contexts' tokens, so that what others do changes nothing."""

from __future__ import annotations

import pytest

from bakehouse.engine.errors import Cancelled, LimitExceeded, OutOfPages, StepFailed
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Rig, last_want


def limited(make_rig: MakeRig, pages: int = 4, pool: int = 64, **limits: int) -> Rig:
    """Pages of four tokens, of which program ``p`` may have *pages*."""
    rig = make_rig(pool, **limits)
    rig.planner.contexts.charges.allow("p", pages)
    return rig


def create(rig: Rig, program: str = "p") -> Context:
    return rig.planner.contexts.create("ada", None, program)


def has(rig: Rig) -> int:
    return rig.planner.contexts.charges.pages_of("p")


def run(rig: Rig, context: Context | None, tokens: int, **more: object) -> Outcome:
    (outcome,) = rig.run(Pass("ada", context, [1] * tokens, program="p", **more))  # type: ignore[arg-type]
    return outcome


def test_pages_count_as_tokens_need_them(make_rig: MakeRig) -> None:
    rig = limited(make_rig)
    context = create(rig)
    for tokens, pages in ((1, 1), (3, 1), (1, 2), (11, 4)):
        assert run(rig, context, tokens).error is None
        assert has(rig) == pages
    outcome = run(rig, context, 1)
    assert isinstance(outcome.error, LimitExceeded)
    assert "pages: " in outcome.error.detail and "at most 4" in outcome.error.detail
    assert (context.length, has(rig)) == (16, 4)
    rig.planner.contexts.release(context)
    assert has(rig) == 0


def test_a_pass_that_is_refused_is_the_only_one(make_rig: MakeRig) -> None:
    rig = limited(make_rig)
    mine, other = create(rig), create(rig, "q")
    outcomes = rig.run(Pass("ada", mine, [1] * 17), Pass("ada", other, [1] * 40))
    assert isinstance(outcomes[0].error, LimitExceeded) and outcomes[1].error is None
    assert has(rig) == 0


def test_each_context_counts_the_pages_that_it_shares(make_rig: MakeRig) -> None:
    rig = limited(make_rig, pages=5)
    context = create(rig)
    run(rig, context, 6)
    child = rig.planner.contexts.fork(context, None, "p")
    assert has(rig) == 4
    with pytest.raises(LimitExceeded):
        rig.planner.contexts.fork(context, None, "p")
    assert len(rig.planner.contexts) == 2
    rig.planner.contexts.fork(context, None, "q")
    twin = create(rig)
    assert isinstance(run(rig, twin, 6).error, LimitExceeded), "also those that it would find in the cache"
    rig.planner.contexts.release(child)
    assert run(rig, twin, 6).error is None


def test_what_is_put_aside_still_counts(make_rig: MakeRig) -> None:
    rig = limited(make_rig, pages=4, pool=6)
    context, other = create(rig), create(rig, "q")
    run(rig, context, 12)
    rig.feed(other, [2] * 20)
    assert rig.planner.preemptions == 1 and not context.pages
    assert has(rig) == 3
    assert isinstance(run(rig, create(rig), 5).error, LimitExceeded)
    assert run(rig, context, 4, wants=last_want([1] * 4)).error is None


def test_passes_without_a_context_count_while_they_run(make_rig: MakeRig) -> None:
    rig = limited(make_rig, max_step_tokens=8, prefill_chunk=4)
    context = create(rig)
    run(rig, context, 8)
    assert isinstance(run(rig, None, 12, wants=last_want([1] * 12)).error, LimitExceeded)
    rig.submit(Pass("ada", None, [2] * 8, wants=last_want([2] * 8), program="p"))
    rig.step()
    assert has(rig) == 4
    rig.drain()
    assert has(rig) == 2


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_a_pass_that_is_given_up_counts_no_more(make_rig: MakeRig, how: str) -> None:
    rig = limited(make_rig)
    context = create(rig)
    run(rig, context, 4)
    pass_ = Pass("ada", context, [1] * 12)
    rig.submit(pass_)
    step = rig.planner.plan(0.0)
    assert has(rig) == 4
    if how == "cancel":
        rig.planner.cancel(pass_)
        ((_, outcome),) = rig.planner.commit(step, rig.device.run(step.plan), 0.0)
        assert isinstance(outcome.error, Cancelled)
    else:
        rig.device.spoil(step.plan)
        rig.planner.fail(step, StepFailed("so it goes"))
    assert has(rig) == 1
    rig.planner.check_integrity()


def test_pages_that_are_asked_for_count(make_rig: MakeRig) -> None:
    rig = limited(make_rig, pages=6, pool=7)
    context = create(rig)
    context.reserve_pages(3)
    assert has(rig) == 3
    with pytest.raises(LimitExceeded):
        context.reserve_pages(7)
    other = create(rig, "q")
    other.reserve_pages(3)
    rig.planner.submit(Pass("ada", other, [1] * 12))
    step = rig.planner.plan(0.0)
    with pytest.raises(OutOfPages):
        context.reserve_pages(6)
    assert has(rig) == 3
    rig.planner.commit(step, rig.device.run(step.plan), 0.0)
    context.release_pages(2)
    assert has(rig) == 1
    rig.planner.check_integrity()


def test_forgotten_tokens_count_no_more(make_rig: MakeRig) -> None:
    rig = limited(make_rig)
    context = create(rig)
    run(rig, context, 14)
    context.set_cursor(0)
    assert has(rig) == 3
    context.rewind(10)
    assert has(rig) == 1


def test_a_context_counts_for_all_who_have_it_open(make_rig: MakeRig) -> None:
    rig = limited(make_rig, pages=3)
    table = rig.planner.contexts
    table.charges.allow("q", 2)
    context = table.create("ada", "shared", "p")
    run(rig, context, 5)
    assert table.lookup("ada", "shared", "q") is context
    assert table.lookup("ada", "shared", "q") is context
    assert (has(rig), table.charges.pages_of("q")) == (2, 2)
    assert isinstance(run(rig, context, 4).error, LimitExceeded), "it is too much for one of them"
    table.end_program("q")
    assert run(rig, context, 4).error is None
    table.charges.allow("r", 2)
    with pytest.raises(LimitExceeded):
        table.lookup("ada", "shared", "r")
    assert context.programs == {"p"}


def test_drafts_that_may_be_left_out_do_not_count(make_rig: MakeRig) -> None:
    rig = limited(make_rig, pages=2)
    context = create(rig)
    run(rig, context, 6)
    tokens = [1, 1]
    outcome = run(rig, context, 2, wants=last_want(tokens), drafts=[1, 1, 1])
    assert outcome.error is None
    other = create(rig, "q")
    rig.planner.contexts.charges.allow("q", 1)
    assert isinstance(
        rig.run(Pass("ada", other, [1] * 4, wants=last_want([1] * 4), drafts=[1], every_draft=True))[0].error,
        LimitExceeded,
    )


def pinned(rig: Rig, owner: str, first: int, tokens: int = 8, adapter: int | None = 0) -> Outcome:
    """A context that used an adapter, where that is not None."""
    context = rig.planner.contexts.create(owner, None, owner)
    (outcome,) = rig.run(Pass(owner, context, [first] * tokens, program=owner, adapter=adapter, generation=1))
    rig.planner.check_integrity()
    return outcome


def test_who_pins_pages_leaves_some_for_others(make_rig: MakeRig) -> None:
    rig = make_rig(16)
    assert [pinned(rig, "ada", number).error for number in range(6)] == [None] * 6
    refused = pinned(rig, "ada", 6).error
    assert isinstance(refused, LimitExceeded) and refused.field == "pages"
    assert pinned(rig, "ada", 7, adapter=None).error is None, "it can be put aside"
    assert pinned(rig, "bob", 8).error is None
    contexts = rig.planner.contexts
    first = next(context for context in contexts.contexts.values() if context.pinned)
    with pytest.raises(LimitExceeded):
        contexts.fork(first)
    with pytest.raises(LimitExceeded):
        first.reserve_pages(4)
    contexts.end_program("ada")
    rig.planner.check_integrity()
    assert pinned(rig, "ada", 9).error is None


def test_pages_out_of_order_are_pinned_too(make_rig: MakeRig) -> None:
    rig = make_rig(8)
    contexts = [rig.planner.contexts.create("ada", None, "p") for _ in range(2)]
    for context in contexts:
        context.reserve_pages(4)
        (outcome,) = rig.run(Pass("ada", context, [context.id] * 16, program="p"))
        assert outcome.error is None
    contexts[0].commit_pages([1])
    with pytest.raises(LimitExceeded, match="pages: 4 more"):
        contexts[1].commit_pages([1])
    contexts[1].commit_pages([0])
    rig.planner.check_integrity()


def test_pages_that_were_reserved_before_are_pinned_with_the_others(make_rig: MakeRig) -> None:
    rig = make_rig(16)
    context = rig.planner.contexts.create("ada", None, "p")
    context.reserve_pages(13)

    def step() -> Outcome:
        (outcome,) = rig.run(Pass("ada", context, [1] * 4, program="p", adapter=0, generation=1))
        rig.planner.check_integrity()
        return outcome

    assert isinstance(step().error, LimitExceeded)
    context.release_pages(1)
    assert step().error is None
    assert context.pinned_pages == 12
