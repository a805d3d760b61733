"""Equal prefixes are computed once and held once; what is not equal is never taken for equal."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass
from bakehouse.engine.plan.prefix import KEY_BYTES, AdapterKey, KeyMaker
from bakehouse.engine.plan.step import ReadoutResult
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Naive, Rig, last_want

PROMPT = [1, 0, 2, 2, 1, 0, 1, 1, 2, 0, 0, 1]


def prompt_pass(rig: Rig, tokens: list[int] = PROMPT, owner: str = "", **more: Any) -> Pass:
    return Pass(owner, rig.planner.contexts.create(owner), tokens, wants=last_want(tokens), **more)


def rows(rig: Rig, *passes: Pass) -> int:
    before = rig.device.rows
    for pass_, outcome in zip(passes, rig.run(*passes), strict=True):
        assert outcome.error is None, outcome.error
        naive = Naive()
        if pass_.context is not None and pass_.context.length == len(pass_.tokens):
            assert outcome == naive.run(pass_)
    return rig.device.rows - before


def rows_of_32(make_rig: MakeRig, tails: list[list[int]]) -> tuple[int, int]:
    """(rows that ran, pages that are held) for 32 prompts of 1,024 tokens that differ in their tails; no device."""
    planner = make_rig(pages=512, page_size=16, prefill_chunk=256).planner
    for tail in tails:
        tokens = [*((number * number) % 3 for number in range(1024)), *tail]
        planner.submit(Pass("", planner.contexts.create(""), tokens, wants=last_want(tokens)))
    while not planner.idle():
        step = planner.plan(0.0)
        planner.commit(step, [ReadoutResult(0)] * len(step.plan.readouts), 0.0)
    return planner.counters.rows, planner.pages.held


def test_32_equal_prompts_cost_one_prefill(make_rig: MakeRig) -> None:
    rows, pages = rows_of_32(make_rig, [[]] * 32)
    assert rows == 1024 + 31, "one prefill, and each one's last token for its result"
    assert pages == 64, "and one copy of it"


def test_32_continuations_of_one_prompt_cost_one_prefill(make_rig: MakeRig) -> None:
    rows, pages = rows_of_32(make_rig, [[0, 1, number % 3] for number in range(32)])
    assert rows == 1024 + 32 * 3
    assert pages == 64 + 32


def test_rows_somebody_wants_are_run_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    assert rows(rig, prompt_pass(rig)) == 12
    assert rows(rig, prompt_pass(rig)) == 1
    flush = Pass("", rig.planner.contexts.create(""), PROMPT)
    assert rows(rig, flush) == 0 and flush.context is not None and flush.context.committed_pages == 3
    middle = prompt_pass(rig)
    middle.wants[0].index = 5
    assert rows(rig, middle) == 7


def test_a_prefix_is_found_after_its_context_was_released(make_rig: MakeRig) -> None:
    rig = make_rig()
    first = prompt_pass(rig)
    rows(rig, first)
    assert first.context is not None
    rig.planner.contexts.release(first.context)
    assert rig.planner.pages.cached == 3
    assert rows(rig, Pass("", None, [*PROMPT, 1], wants=last_want([*PROMPT, 1]))) == 1


def test_adoption_starts_in_the_middle_of_a_page_too(make_rig: MakeRig) -> None:
    rig = make_rig()
    rows(rig, prompt_pass(rig))
    context = rig.planner.contexts.create("")
    rig.feed(context, PROMPT[:2])
    before = rig.device.rows
    rig.feed(context, PROMPT[2:])
    assert rig.device.rows == before
    assert rig.planner.pages.held == 3


def test_pages_that_turn_out_equal_become_one(make_rig: MakeRig) -> None:
    rig = make_rig()
    contexts = [rig.planner.contexts.create("") for _ in range(3)]
    for token in PROMPT[:8]:  # side by side, so that none can adopt
        rig.run(*(Pass("", context, [token]) for context in contexts))
    assert rig.planner.pages.held == 2
    assert contexts[0].pages == contexts[1].pages == contexts[2].pages


def test_a_waiter_computes_by_itself_when_the_other_is_cancelled(make_rig: MakeRig) -> None:
    rig = make_rig()
    first, second = prompt_pass(rig), prompt_pass(rig)
    rig.submit(first, second)
    step = rig.planner.plan(0.0)
    assert [part.pass_ for part in step.parts] == [first]
    rig.planner.cancel(first)
    rig.outcomes.update(rig.planner.commit(step, rig.device.run(step.plan), 0.0))
    rig.drain()
    assert rig.outcomes[first].error is not None
    assert rig.outcomes[second] == Naive().run(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"adapter": 1, "generation": 1}, {}),
        ({"adapter": 1, "generation": 1}, {"adapter": 1, "generation": 2}),
        ({"adapter": 1, "zo_seed": 5}, {"adapter": 1, "zo_seed": 6}),
        ({"positions": list(range(1, 13))}, {}),
        ({"masks": [(0, n + 1) if n < 2 else (1, n) for n in range(12)]}, {}),
        ({"masks": [(0, n + 1) for n in range(12)]}, {"masks": [(max(n - 2, 0), min(n + 1, 3)) for n in range(12)]}),
    ],
    ids=["adapter", "weights", "noise", "positions", "mask", "window"],
)
def test_what_differs_is_not_shared(make_rig: MakeRig, one: dict[str, Any], other: dict[str, Any]) -> None:
    rig = make_rig()
    assert rows(rig, prompt_pass(rig, **one)) == 12
    assert rows(rig, prompt_pass(rig, **other)) == 12
    assert rig.planner.pages.held == 6


def test_a_causal_mask_spelt_out_is_the_default(make_rig: MakeRig) -> None:
    rig = make_rig()
    rows(rig, prompt_pass(rig))
    spelt = prompt_pass(rig, masks=[(0, 0, 0, position + 1, 5) for position in range(12)])
    wide = prompt_pass(rig, masks=[(0, position + 1, 7, 0) for position in range(12)])
    assert rows(rig, spelt, wide) == 2
    assert all(segment.visible is None for step in rig.steps for segment in step.plan.segments)
    assert rig.planner.pages.held == 3


def test_equal_adapter_seed_and_masks_are_shared(make_rig: MakeRig) -> None:
    rig = make_rig()
    more: dict[str, Any] = {"adapter": 1, "generation": 4, "zo_seed": 9, "masks": [(n, 1) for n in range(12)]}
    assert rows(rig, prompt_pass(rig, **more)) == 12
    assert rows(rig, prompt_pass(rig, **more)) == 1


@pytest.mark.parametrize(("salted", "second"), [(False, 1), (True, 12)])
def test_owners_share_unless_they_are_salted(make_rig: MakeRig, salted: bool, second: int) -> None:
    rig = make_rig(salt_per_owner=salted)
    assert rows(rig, prompt_pass(rig, owner="ann")) == 12
    assert rows(rig, prompt_pass(rig, owner="bob")) == second
    assert rows(rig, prompt_pass(rig, owner="ann")) == 1


def test_without_the_prefix_cache_only_forks_share(make_rig: MakeRig) -> None:
    rig = make_rig(prefix_cache=False)
    first = rig.planner.contexts.create("")
    rig.feed(first, PROMPT)
    ran = rig.planner.counters.rows
    child = rig.planner.contexts.fork(first)
    rig.feed(child, PROMPT)
    assert rig.planner.counters.rows - ran == 12
    assert rows(rig, prompt_pass(rig)) == 12


def test_rows_that_look_forward_are_never_shared(make_rig: MakeRig) -> None:
    """Their KV depends on what came in the same pass, which no prefix tells."""
    rig = make_rig()
    everything = [(0, 12)] * 12
    assert rows(rig, prompt_pass(rig, masks=everything)) == 12
    other = [*PROMPT[:8], 2, 2, 2, 2]
    assert rows(rig, prompt_pass(rig, other, masks=everything)) == 12
    assert rows(rig, prompt_pass(rig, masks=everything)) == 12


def test_pages_committed_out_of_order_are_never_shared(make_rig: MakeRig) -> None:
    rig = make_rig()
    for _ in range(2):
        context = rig.planner.contexts.create("")
        context.reserve_pages(3)
        rig.feed(context, PROMPT)
        context.commit_pages([1])
        assert (context.committed_pages, context.cursor) == (1, 8)
    tail = rig.planner.contexts.create("")
    rig.run(Pass("", tail, PROMPT[4:8], positions=[4, 5, 6, 7], wants=last_want(PROMPT[:4])))
    assert rig.planner.pages.held == 7


def test_what_is_left_of_pages_out_of_order_is_not_shared_either(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    context.reserve_pages(2)
    rig.feed(context, PROMPT[:8])
    context.commit_pages([1])
    context.rewind(6)
    assert (context.length, context.positions, context.pinned) == (2, [4, 5], True)
    rig.feed(context, PROMPT[6:8])
    plain = Pass("", None, [*PROMPT[4:8], 1], positions=[4, 5, 6, 7, 8], wants=last_want(PROMPT[:5]))
    assert rows(rig, plain) == 5


def test_a_rewound_context_does_not_write_to_what_others_may_find(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    rig.feed(context, PROMPT[:8])
    context.rewind(2)
    assert (context.committed_pages, context.cursor) == (1, 2)
    rig.feed(context, [0, 0, 0])
    assert rows(rig, prompt_pass(rig, PROMPT[:9])) == 1, "both pages are found, with their old content"


def test_a_cancelled_prefill_leaves_its_pages_in_the_cache(make_rig: MakeRig) -> None:
    rig = make_rig(prefill_chunk=4)
    first = prompt_pass(rig)
    rig.submit(first)
    rig.step()
    rig.planner.cancel(first)
    rig.drain()
    assert first.context is not None and first.context.state().committed_pages == 0
    assert rig.planner.pages.cached == 1
    assert rows(rig, prompt_pass(rig)) == 8


def test_of_a_prefix_the_end_is_evicted_first(make_rig: MakeRig) -> None:
    rig = make_rig(pages=4)
    first = prompt_pass(rig)
    rows(rig, first)
    assert first.context is not None
    rig.planner.contexts.release(first.context)
    rig.feed(rig.planner.contexts.create(""), [2] * 5)
    rig.planner.contexts.release(next(iter(rig.planner.contexts.contexts.values())))
    assert rows(rig, prompt_pass(rig)) == 4, "its first two pages were left"


def page_key(maker: KeyMaker, **change: Any) -> bytes:
    given: dict[str, Any] = {"before": maker.root(""), "tokens": array("i", [1, 2, 3, 4]), "positions": range(4)}
    return maker.page(**{**given, **change})


def test_keys_depend_on_all_that_the_kv_depends_on() -> None:
    maker = KeyMaker("model")
    adapters = [((0, AdapterKey(1, 1, 0)),), ((0, AdapterKey(1, 1, 7)),), ((0, None), (2, AdapterKey(1, 1, 0)))]
    keys = [
        page_key(maker),
        page_key(maker, tokens=array("i", [1, 2, 3, 5])),
        page_key(maker, positions=range(1, 5)),
        page_key(maker, before=page_key(maker)),
        page_key(maker, visible=[(2, ((0, 1), (2, 3)))]),
        page_key(maker, visible=[(3, ((0, 1), (2, 3)))]),
        *(page_key(maker, adapters=runs) for runs in adapters),
        maker.private(),
        maker.private(),
        page_key(KeyMaker("model")),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == KEY_BYTES >= 16 for key in keys)
    assert page_key(maker) == page_key(maker)


def test_a_mask_that_lets_a_token_see_nothing_is_refused_by_index(make_rig: MakeRig) -> None:
    rig = make_rig()
    context: Context = rig.planner.contexts.create("")
    (outcome,) = rig.run(Pass("", context, [1, 2], masks=[(0, 1), (5,)]))
    assert isinstance(outcome.error, BadRequest) and "masks[1]" in str(outcome.error)
    assert context.length == 0


def test_pages_that_were_cut_free_are_not_written_while_others_read_them(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = rig.planner.contexts.create("")
    rig.feed(parent, PROMPT)
    child = rig.planner.contexts.fork(parent)
    child.reserve_pages(3)
    child.rewind(11)
    rig.feed(child, [2] * 10)
    naive = Naive()
    naive.run(Pass("", None, PROMPT))
    assert [rig.device.at(parent.pages, slot) for slot in range(12)] == naive.entries


def test_a_page_keeps_the_key_that_its_first_holder_gave_it(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = rig.planner.contexts.create("")
    parent.reserve_pages(3)
    rig.feed(parent, PROMPT)
    child = rig.planner.contexts.fork(parent)
    parent.commit_pages([0, 1])
    child.commit_pages([1])
    assert child.keys == [parent.keys[1]]
    rig.planner.check_integrity()
