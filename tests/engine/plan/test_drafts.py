"""Drafts change how many steps it takes, never what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import GREEDY, Penalties, Sampler, SamplerKind
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.plan.step import ReadoutResult
from tests.engine.plan.conftest import MakeRig
from tests.engine.plan.fake import Naive, Rig, last_want


def plainly(prompt: list[int], count: int) -> list[int]:
    """What one token after the other gives."""
    naive, tokens, out = Naive(), prompt, []
    for _ in range(count):
        result = naive.run(Pass("", None, tokens, wants=last_want(tokens))).results[0]
        assert isinstance(result.value, int)
        out.append(result.value)
        tokens = [result.value]
    return out


PROMPT = [1, 2, 0, 1, 1]
EXPECTED = plainly(PROMPT, 90)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=8), st.booleans())
def test_drafted_equals_plain(drafts: list[list[int]], guess_well: bool) -> None:
    prompt, expected = PROMPT, EXPECTED
    rig = Rig(Planner(PlanLimits(pages=32, page_size=4)))
    context = rig.planner.contexts.create("")
    tokens, out = prompt, list[int]()
    for guess in drafts:
        right = expected[len(out) : len(out) + 3] if guess_well else []
        (outcome,) = rig.run(Pass("", context, tokens, wants=last_want(tokens), drafts=[*right, *guess]))
        assert len(outcome.accepted) == len(outcome.accepted_results)
        out += outcome.accepted
        assert out == expected[: len(out)]
        assert context.length == len(prompt) + len(out) - 1, "KV holds all but the last"
        tokens = [out[-1]]
    if guess_well:
        assert len(out) >= 4 * len(drafts)


def test_pages_of_rejected_drafts_are_given_back(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    wrong = 2 if plainly([1], 1) == [0] else 0
    (outcome,) = rig.run(Pass("", context, [1], wants=last_want([1]), drafts=[wrong] * 9))
    assert len(outcome.accepted) == 1
    assert (context.length, rig.planner.pages.held) == (1, 1)
    assert rig.planner.counters.rejected == 9


def test_each_draft_has_the_wants_sampler_with_its_own_draw_and_history(make_rig: MakeRig) -> None:
    rig = make_rig()
    sampler = Sampler(kind=SamplerKind.TOP_K, top_k=2)
    penalties = Penalties(frequency=1.0)
    want = Want(1, sampler, seed=7, draw=40, penalties=penalties, prompt=[9], generated=[5], logprobs=2)
    rig.submit(Pass("", None, [1, 2], wants=[Want(0, GREEDY), want], drafts=[0, 1]))
    readouts = rig.planner.plan(0.0).plan.readouts
    assert [readout.row for readout in readouts] == [0, 1, 2, 3]
    assert [readout.draw for readout in readouts[1:]] == [40, 41, 42]
    assert [list(readout.generated) for readout in readouts[1:]] == [[5], [5, 0], [5, 0, 1]]
    assert {(r.sampler, r.seed, r.penalties, r.logprobs) for r in readouts[1:]} == {(sampler, 7, penalties, 2)}


class Masks:
    def __init__(self, masks: list[bytes | None]) -> None:
        self.given = masks

    def masks(self, drafts: Sequence[int]) -> list[bytes | None]:
        return self.given


@pytest.mark.parametrize(("masks", "accepted"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_only_drafts_with_a_mask_count(make_rig: MakeRig, masks: int, accepted: int) -> None:
    rig = make_rig()
    source = Masks([bytes([number]) for number in range(masks)])
    context = rig.planner.contexts.create("")
    pass_ = Pass("", context, [1], wants=last_want([1]), drafts=[2, 2, 2], mask_source=source)
    rig.submit(pass_)
    step = rig.planner.plan(0.0)
    (part,) = step.parts
    assert part.needs_masks and list(part.draft_tokens) == [2, 2, 2]
    step.set_masks(part, source.masks(part.draft_tokens))
    assert [readout.mask for readout in step.plan.readouts] == (source.given + [None] * 4)[:4]
    ((_, outcome),) = rig.planner.commit(step, [ReadoutResult(2)] * 4, 0.0)
    assert outcome.accepted == (2,) * accepted
    assert context.length == accepted


def test_masks_are_asked_for_with_the_last_row_only(make_rig: MakeRig) -> None:
    rig = make_rig(prefill_chunk=4)
    own = Want(9, GREEDY, mask=b"own")
    wants = [Want(2, GREEDY), Want(9, GREEDY), own]
    rig.submit(Pass("", None, [1] * 10, wants=wants, mask_source=Masks([b"source"])))
    asked = []
    while not rig.planner.idle():
        step = rig.planner.plan(0.0)
        asked.append(step.parts[0].needs_masks)
        if step.parts[0].needs_masks:
            step.set_masks(step.parts[0], [b"source"])
            assert [readout.mask for readout in step.plan.readouts] == [b"source", b"own"]
        else:
            assert all(readout.mask is None for readout in step.plan.readouts)
        rig.planner.commit(step, rig.device.run(step.plan), 0.0)
    assert asked == [False, False, True]


def test_drafts_are_dropped_rather_than_the_pass(make_rig: MakeRig) -> None:
    rig = make_rig(pages=2)
    context = rig.planner.contexts.create("")
    (outcome,) = rig.run(Pass("", context, [1] * 7, wants=last_want([1] * 7), drafts=[0] * 9))
    assert outcome.error is None and len(outcome.accepted) == 1


def test_a_draft_that_cannot_be_sampled_ends_the_verification(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    rig.submit(Pass("", context, [1], wants=last_want([1]), drafts=[2, 2]))
    step = rig.planner.plan(0.0)
    broken = ReadoutResult(-1, error=BadRequest("its mask allows nothing"))
    ((_, outcome),) = rig.planner.commit(step, [ReadoutResult(2), broken, ReadoutResult(2)], 0.0)
    assert outcome.error is None and outcome.accepted == (2,) and context.length == 1


def test_a_result_that_cannot_be_sampled_ends_the_pass(make_rig: MakeRig) -> None:
    rig = make_rig()
    context = rig.planner.contexts.create("")
    rig.submit(Pass("", context, [1], wants=last_want([1])))
    step = rig.planner.plan(0.0)
    broken = ReadoutResult(-1, error=BadRequest("its mask allows nothing"))
    ((_, outcome),) = rig.planner.commit(step, [broken], 0.0)
    assert isinstance(outcome.error, BadRequest) and context.length == 0


def test_drafts_need_a_token_sampler_at_the_last_input(make_rig: MakeRig) -> None:
    rig = make_rig()
    embedding = Sampler(kind=SamplerKind.EMBEDDING)
    for wants in ([], [Want(0, GREEDY)], [Want(1, embedding)]):
        (outcome,) = rig.run(Pass("", None, [1, 2], wants=wants, drafts=[1]))
        assert isinstance(outcome.error, BadRequest) and outcome.error.field == "draft_tokens"
