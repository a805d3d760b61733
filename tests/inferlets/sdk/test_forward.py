"""Single passes: what they want, what they leave, and what they check."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from inferlet import Context, ForwardPass, Model, Output, Sampler, masks
from inferlet.errors import BadRequest, DeadlineExceeded
from inferlet.output import Distribution

GREEDY = Sampler.greedy()


def test_a_loop_by_hand_is_what_generate_does(ctx: Context) -> None:
    ctx.cue()
    whole = ctx.fork().generate(GREEDY, max_tokens=8, auto_flush=False).tokens()
    forward = ForwardPass(ctx.model).context(ctx)
    tokens, found = ctx.buffered_tokens, []
    for _ in range(8):
        output = forward.input_tokens(tokens).sampler([len(tokens) - 1], GREEDY).execute()
        assert isinstance(output, Output.Tokens)
        tokens = output.value
        found += tokens
    assert found == whole
    assert ctx.buffered_tokens == [] and ctx.cursor < ctx.tokens_per_page


def test_results_stand_in_the_order_they_were_asked(model: Model) -> None:
    forward = ForwardPass(model).input_tokens([1, 2, 3])
    forward.sampler([0, 2], GREEDY).sampler([1], Sampler.dist(seed=4)).sampler([2], Sampler.embedding())
    output = forward.logprobs(2).execute()
    first, second, distribution, embedding = output.results
    assert isinstance(output, Output.Tokens) and output.value == [first, second]
    assert isinstance(distribution, Distribution) and len(distribution.ids) == len(distribution.probs) == 4
    assert list(distribution.probs) == sorted(distribution.probs, reverse=True)
    assert isinstance(embedding, bytes) and len(array("f", embedding)) == model.hidden_size
    assert [entry.token for entry in output.logprobs][:2] == output.value


def test_the_kinds_of_outputs(model: Model) -> None:
    def run(*samplers: Sampler) -> Any:
        forward = ForwardPass(model).input_tokens([5, 6])
        for sampler in samplers:
            forward.sampler([1], sampler)
        return forward.execute()

    match run(Sampler.dist()):
        case Output.Distributions(value=[(ids, probs)]):
            assert len(ids) == model.vocab_size and abs(sum(probs) - 1) < 1e-4
        case other:
            raise AssertionError(other)
    assert isinstance(run(Sampler.embedding()), Output.Embeddings) and len(run(Sampler.embedding()).value) == 1
    assert isinstance(run(), Output.Empty) and run().value is None and run().results == []
    assert len(run(GREEDY, GREEDY).value) == 2


def test_drafts_are_verified(ctx: Context) -> None:
    ctx.cue()
    truth = ctx.fork().generate(GREEDY, max_tokens=6, auto_flush=False).tokens()
    ctx.flush()
    last = ctx.buffered_tokens
    wrong = (truth[2] + 1) % 200
    forward = ForwardPass(ctx.model).context(ctx).enable_speculative_output(False)
    output = forward.input_tokens(last).speculative_tokens([*truth[:2], wrong]).sampler([0], GREEDY).execute()
    assert isinstance(output, Output.TokensWithSpeculation)
    assert output.value == (truth[:3], [], []) and output.accepted == truth[:3]
    output = forward.input_tokens(truth[2:3]).sampler([0], GREEDY).execute()
    assert output.value == truth[3:4]


def test_masks_of_positions_and_of_ids(model: Model) -> None:
    def run(forward: ForwardPass) -> list[int]:
        return forward.sampler([3], GREEDY).execute().results  # type: ignore[return-value]

    def given() -> ForwardPass:
        return ForwardPass(model).input_tokens([65, 66, 67, 68])

    plain = run(given())
    assert plain == run(given().attention_mask([masks.causal(at) for at in range(4)]))
    assert run(given().logit_mask(masks.runs_of([99]))) == [99] == run(given().logit_mask([99, 1]))
    assert plain == run(given().logit_mask([]))


def test_positions_are_for_all_tokens_or_for_none(model: Model) -> None:
    forward = ForwardPass(model).input_tokens([1], [0]).input_tokens([2, 3], [1, 2])
    assert len(forward.sampler([2], GREEDY).execute().results) == 1
    with pytest.raises(ValueError, match="for these too"):
        ForwardPass(model).input_tokens([1], [0]).input_tokens([2])
    with pytest.raises(ValueError, match="tokens before"):
        ForwardPass(model).input_tokens([1]).input_tokens([2], [1])


def test_what_is_used_up_and_what_stays(ctx: Context) -> None:
    ctx.cue()
    forward = ForwardPass(ctx.model).context(ctx).input_tokens([70]).sampler([0], GREEDY)
    forward.execute()
    with pytest.raises(BadRequest, match="at least one input token"):
        forward.execute()
    before = ctx.last_position or 0
    forward.input_tokens([71]).execute()
    assert ctx.last_position == before + 1


def test_a_pass_that_fails_leaves_its_context(ctx: Context) -> None:
    before = ctx.state()
    forward = ForwardPass(ctx.model).context(ctx)
    for text, broken in (
        ("samplers.indices", lambda: forward.input_tokens([1]).sampler([1], GREEDY)),
        ("masks", lambda: forward.input_tokens([1]).attention_mask([])),
        ("below|vocab", lambda: forward.input_tokens([99999])),
        ("zo_seed", lambda: ForwardPass(ctx.model).context(ctx).input_tokens([1]).adapter_seed(3)),
    ):
        with pytest.raises(BadRequest, match=text):
            broken().execute()
    with pytest.raises(DeadlineExceeded):
        forward.input_tokens([1]).timeout(0.0).execute()
    assert ctx.state() == before
