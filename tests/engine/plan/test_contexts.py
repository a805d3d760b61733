"""Names, lifetimes, and what a caller may do to pages and cursor by hand."""

from __future__ import annotations

import pytest

from bakehouse.engine.errors import BadRequest, Cancelled, LimitExceeded, NameTaken, NotFound, OutOfPages
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Rig


def fed(rig: Rig, count: int, **names: str) -> Context:
    context = rig.planner.contexts.create("ann", **names)
    rig.feed(context, [number % 3 for number in range(count)])
    return context


def test_names_belong_to_owners(make_rig: MakeRig) -> None:
    table = make_rig().planner.contexts
    ann, bob = table.create("ann", "x", "p"), table.create("bob", "x", "p")
    assert table.lookup("ann", "x", "p") is ann
    assert table.lookup("bob", "x", "p") is bob
    assert table.lookup("eve", "x", "p") is None


def test_a_name_moves_to_the_newest_context_and_the_old_one_lives_on(make_rig: MakeRig) -> None:
    rig = make_rig()
    table = rig.planner.contexts
    old = fed(rig, 5, name="x", program="p")
    new = table.create("ann", "x", "q")
    assert table.lookup("ann", "x", "q") is new
    assert (old.name, old.released, old.length) == (None, False, 5)
    table.end_program("p")
    assert old.released and not new.released


def test_of_what_an_owner_left_behind_the_least_recently_used_go(make_rig: MakeRig) -> None:
    rig = make_rig(max_left=2)
    table = rig.planner.contexts
    left = [fed(rig, 5, name=str(number), program="p") for number in range(4)]
    other = table.create("bob", "x", "q")
    rig.feed(left[0], [1])
    table.lookup("ann", "1", "r")
    table.end_program("q")
    table.end_program("p")
    assert [context.released for context in left] == [False, False, True, False], "the second is open elsewhere"
    table.end_program("r")
    assert [context.released for context in left] == [False, True, True, False]
    assert not other.released


def test_a_name_left_by_a_finished_program_is_replaced(make_rig: MakeRig) -> None:
    table = make_rig().planner.contexts
    for _ in range(3):  # a program that runs again and again
        parent = table.create("ann", None, "p")
        child = table.fork(parent, "beam", "p")
        with pytest.raises(NameTaken, match="beam"):
            table.fork(parent, "beam", "p")
        table.end_program("p")
        assert parent.released and not child.released
    assert len(table) == 1
    table.create("ann", "beam", "q")
    assert child.released and len(table) == 1


def test_a_context_that_was_looked_up_is_in_use(make_rig: MakeRig) -> None:
    table = make_rig().planner.contexts
    left = table.create("ann", "x", "p")
    table.end_program("p")
    assert table.lookup("ann", "x", "q") is left
    with pytest.raises(NameTaken):
        table.fork(left, "x", "r")
    table.create("ann", "x", "r")
    assert not left.released, "q has it open"
    table.end_program("q")
    assert left.released


def test_releasing_frees_pages_and_name_and_ends_passes(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 6, name="x")
    waiting = Pass("ann", context, [1, 2])
    rig.submit(waiting)
    rig.planner.contexts.release(context)
    rig.planner.contexts.release(context)
    assert rig.planner.pages.held == 0 and rig.planner.contexts.lookup("ann", "x") is None
    rig.drain()
    assert isinstance(rig.outcomes[waiting].error, Cancelled)
    with pytest.raises(NotFound):
        rig.planner.submit(Pass("ann", context, [1]))


def test_releasing_in_the_middle_of_a_step(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 6)
    running = Pass("ann", context, [1, 2])
    rig.submit(running)
    step = rig.planner.plan(0.0)
    rig.planner.contexts.release(context)
    rig.planner.check_integrity()
    ((pass_, outcome),) = rig.planner.commit(step, rig.device.run(step.plan), 0.0)
    assert pass_ is running and isinstance(outcome.error, Cancelled)
    assert rig.planner.pages.held == 0 and rig.planner.idle()


def test_too_many_contexts(make_rig: MakeRig) -> None:
    table = make_rig(max_contexts=2).planner.contexts
    first = table.create("ann")
    table.fork(first)
    with pytest.raises(LimitExceeded, match="2 contexts"):
        table.create("ann")
    with pytest.raises(LimitExceeded, match="2 contexts"):
        table.fork(first)


def test_an_owner_leaves_contexts_for_others(make_rig: MakeRig) -> None:
    table = make_rig(max_contexts=16).planner.contexts
    mine = [table.create("ann") for _ in range(12)]
    with pytest.raises(LimitExceeded, match="16 contexts; of them this owner has 12"):
        table.create("ann")
    for _ in range(3):
        table.create("bob")
    with pytest.raises(LimitExceeded, match="has 3 already"):
        table.create("bob")
    table.create("cyd")
    for context in mine:
        table.release(context)
    table.create("ann")


def test_committed_cursor_and_positions(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("ann")
    assert (context.committed_pages, context.cursor, context.last_position) == (0, 0, None)
    rig.feed(context, [1] * 7)
    assert (context.committed_pages, context.cursor, context.last_position) == (1, 3, 6)
    rig.run(Pass("ann", context, [1], positions=[20]))
    assert (context.committed_pages, context.cursor, context.last_position) == (2, 0, 20)
    rig.feed(context, [1])
    assert context.last_position == 21


def test_set_cursor(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 7)
    with pytest.raises(BadRequest, match="3 tokens are filled"):
        context.set_cursor(4)
    context.set_cursor(1)
    assert (context.length, context.cursor, context.last_position, len(context.pages)) == (5, 1, 4, 2)
    context.set_cursor(0)
    assert (context.length, len(context.pages)) == (4, 1)


def test_reserved_pages_are_committed_by_the_caller(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("ann")
    context.reserve_pages(3)
    context.reserve_pages(2)
    assert (len(context.pages), rig.planner.pages.held) == (3, 3)
    pages = context.pages
    rig.feed(context, [0, 1, 2, 0, 1, 2, 0, 1, 2])
    assert (context.pages, context.committed_pages, context.cursor) == (pages, 0, 9)
    with pytest.raises(BadRequest, match="2 pages are full"):
        context.commit_pages([2])
    with pytest.raises(BadRequest, match="2 pages are full"):
        context.commit_pages([0, 0])
    context.commit_pages([0, 1])
    assert (context.committed_pages, context.cursor, len(context.pages)) == (2, 1, 3)
    rig.feed(context, [1] * 3)
    assert context.committed_pages == 3, "from then on pages are committed as they fill"


def test_a_reservation_in_the_middle_of_a_pass(make_rig: MakeRig) -> None:
    rig = make_rig(prefill_chunk=8)
    context = rig.planner.contexts.create("ann")
    rig.submit(Pass("ann", context, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]))
    rig.step()
    context.reserve_pages(4)
    rig.drain()
    assert (context.committed_pages, context.cursor, len(context.pages)) == (2, 4, 4)
    context.commit_pages([0])
    assert (context.committed_pages, len(context.pages)) == (3, 3)


def test_commit_checks_positions(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("ann")
    rig.run(Pass("ann", context, [1] * 8, positions=[0, 1, 2, 2, 7, 6, 5, 4]))
    assert context.committed_pages == 0
    with pytest.raises(BadRequest, match="page 0: positions must be unique"):
        context.commit_pages([0])
    context.commit_pages([1])
    with pytest.raises(BadRequest, match="page 0: positions must be unique and above"):
        context.commit_pages([0])


def test_release_pages(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 7)
    context.reserve_pages(3)
    assert context.uncommitted_pages == 3
    with pytest.raises(BadRequest, match="3 pages are uncommitted"):
        context.release_pages(4)
    context.release_pages(1)
    assert (context.length, context.uncommitted_pages, len(context.pages)) == (4, 2, 3)


def test_a_reservation_that_cannot_be_met(make_rig: MakeRig) -> None:
    rig = make_rig(pages=8)
    pinned = rig.planner.contexts.create("ann")
    rig.run(Pass("ann", pinned, [1] * 8, adapter=1))
    idle = fed(rig, 16)
    context = rig.planner.contexts.create("ann")
    with pytest.raises(OutOfPages, match="7 more pages are needed; of 8 only 6"):
        context.reserve_pages(7)
    assert len(idle.pages) == 4, "nothing was put aside for nothing"
    context.reserve_pages(6)
    assert (len(idle.pages), len(pinned.pages)) == (0, 2)
    with pytest.raises(BadRequest):
        context.reserve_pages(-1)


def test_changes_by_hand_wait_for_passes(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 6)
    rig.submit(Pass("ann", context, [1]))
    for change in (
        lambda: context.set_cursor(0),
        lambda: context.release_pages(1),
        lambda: context.commit_pages([]),
        lambda: context.rewind(1),
    ):
        with pytest.raises(BadRequest, match="under way"):
            change()


def test_rewind_goes_into_committed_pages(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = fed(rig, 10)
    context.rewind(5)
    assert (context.length, context.committed_pages, context.cursor, context.last_position) == (5, 1, 1, 4)
    with pytest.raises(BadRequest, match="5 tokens were run"):
        context.rewind(6)
    context.rewind(5)
    assert (context.length, context.last_position, rig.planner.pages.held) == (0, None, 0)
