"""Masks over positions and over the vocabulary, distributions, embeddings and drafts, against transformers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from inferlet import Context, ForwardPass, Model, Sampler, masks
from inferlet.generation import PromptLookup
from torch import Tensor

from tests.engine.models import VOCABULARY
from tests.inferlets.right.support import (
    NEVER,
    TOLERANCE,
    assert_greedy,
    dense,
    eager_logs,
    greedy,
    holding,
    some_tokens,
)

EagerOf = Callable[[str], Any]
HOT = {
    "top_p": Sampler.top_p(1.6, 0.9),
    "top_k": Sampler.top_k(1.6, 40),
    "min_p": Sampler.min_p(1.6, 0.01),
    "multinomial": Sampler.multinomial(1.6),
    "top_k_top_p": Sampler.top_k_top_p(1.6, 60, 0.95),
    "greedy": Sampler.greedy(),
}


def rows(
    model: Model, tokens: Sequence[int], context: Context | None = None, seen: Sequence[Sequence[int]] | None = None
) -> Tensor:
    """Log-probabilities after each of *tokens* by one pass, ``[tokens, vocabulary]``."""
    step = ForwardPass(model)
    if context is not None:
        step.context(context)
    step.input_tokens(tokens)
    if seen is not None:
        step.attention_mask(seen)
    step.sampler(range(len(tokens)), Sampler.dist())
    return torch.stack([dense(row) for row in step.execute().value]).log()


def with_matrix(eager: Any, tokens: Sequence[int], seen: Sequence[Sequence[int]]) -> Tensor:
    """The same of transformers, the masks given as a matrix."""
    count = len(tokens)
    sees = torch.tensor([[masks.allows(mask, key) for key in range(count)] for mask in seen])
    given = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
    return eager_logs(eager, tokens, attention_mask=given)


def test_distributions_are_the_softmax(model: Model, eager: EagerOf) -> None:
    tokens = some_tokens(50, seed=1)
    wanted = eager_logs(eager("qwen3"), tokens)
    assert (rows(model, tokens) - wanted).abs().max() < TOLERANCE
    with Context(model) as ctx:
        parts = [rows(model, tokens[start:stop], ctx) for start, stop in ((0, 1), (1, 17), (17, 33), (33, 50))]
    assert (torch.cat(parts) - wanted).abs().max() < TOLERANCE


def test_of_a_distribution_the_first_entries_are_the_likeliest(model: Model, eager: EagerOf) -> None:
    tokens = some_tokens(20, seed=2)
    best = eager_logs(eager("qwen3"), tokens)[-1].exp().topk(7)
    step = ForwardPass(model).input_tokens(tokens).sampler([19], Sampler.dist(1.0, 7))
    [(ids, probabilities)] = step.execute().value
    assert list(ids) == best.indices.tolist()
    assert list(probabilities) == pytest.approx(best.values.tolist(), abs=TOLERANCE)


def test_embeddings_are_the_last_hidden_states(model: Model, eager: EagerOf) -> None:
    tokens, theirs = some_tokens(30, seed=3), eager("qwen3")
    with torch.inference_mode():
        wanted = theirs.model(torch.tensor([tokens])).last_hidden_state[0]
    found = ForwardPass(model).input_tokens(tokens).sampler(range(30), Sampler.embedding()).execute().value
    ours = torch.tensor(np.stack([np.frombuffer(data, "<f4") for data in found]))
    assert ours.shape == (30, model.hidden_size)
    assert (ours - wanted).abs().max() < TOLERANCE


def test_results_of_one_pass_may_be_of_several_kinds(model: Model) -> None:
    tokens = some_tokens(9, seed=4)
    step = ForwardPass(model).input_tokens(tokens)
    step.sampler([8], Sampler.greedy()).sampler([0, 8], Sampler.dist(1.0, 3)).sampler([4], Sampler.embedding())
    token, first, last, state = step.execute().results
    assert token == last[0][0]
    assert len(first[0]) == 3 and len(state) == 4 * model.hidden_size


def test_a_causal_mask_is_what_is_used_without_one(model: Model) -> None:
    tokens = some_tokens(40, seed=5)
    assert torch.equal(rows(model, tokens), rows(model, tokens, seen=[masks.causal(row) for row in range(40)]))


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (5, 0), (16, 0), (12, 3)])
def test_windows_and_sinks(model: Model, eager: EagerOf, window: int, sinks: int) -> None:
    tokens = some_tokens(60, seed=window)
    seen = [masks.sliding(row, window, sinks) for row in range(60)]
    with Context(model) as ctx:
        parts = [rows(model, tokens[a:b], ctx, seen[a:b]) for a, b in ((0, 20), (20, 21), (21, 60))]
    assert (torch.cat(parts) - with_matrix(eager("qwen3"), tokens, seen)).abs().max() < TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_chance(model: Model, eager: EagerOf, seed: int) -> None:
    """True means seen: a mask that hides a token is not the one that shows only it."""
    dice, tokens = random.Random(seed), some_tokens(40, seed=seed)
    seen = []
    for row in range(40):
        seen.append(masks.runs_of([key for key in range(row + 1) if key == row or dice.random() < 0.6]))
    with Context(model) as ctx:
        ours = rows(model, tokens, ctx, seen)
    assert (ours - with_matrix(eager("qwen3"), tokens, seen)).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", HOT)
def test_no_sampler_leaves_its_logit_mask(model: Model, kind: str) -> None:
    """In a generation and in a pass; the few ids that are allowed all come in the end, unless it is greedy."""
    allowed = [5, 6, 7, 100, 101, 300]
    prompt = some_tokens(12, seed=6)
    given = {"max_tokens": 60, "auto_flush": False, "stop_tokens": NEVER}
    for mask in (masks.runs_of(allowed), masks.Mask.allowing(allowed)):
        with holding(model, prompt) as ctx:
            tokens = ctx.generate(HOT[kind], logit_mask=mask, **given).tokens()
        assert len(tokens) == 60 and set(tokens) <= set(allowed)
        step = ForwardPass(model).input_tokens(prompt).logit_mask(mask)
        assert set(step.sampler([0, 5, 11], HOT[kind]).execute().value) <= set(allowed)
    if kind == "multinomial":
        assert len(set(tokens)) > 3


def test_masked_distributions_are_of_what_is_allowed(model: Model, eager: EagerOf) -> None:
    prompt = some_tokens(12, seed=7)
    step = ForwardPass(model).input_tokens(prompt).logit_mask([100, 50]).sampler([11], Sampler.dist())
    found = dense(step.execute().value[0])
    wanted = torch.softmax(eager_logs(eager("qwen3"), prompt)[-1][100:150], dim=-1)
    assert (found[100:150] - wanted).abs().max() < TOLERANCE
    assert found[:100].sum() == found[150:].sum() == 0


def test_an_empty_mask_restricts_nothing_and_one_that_allows_nothing_is_refused(model: Model) -> None:
    prompt = some_tokens(12, seed=8)
    free = greedy(holding(model, prompt), 5)
    assert greedy(holding(model, prompt), 5, logit_mask=[]) == free
    assert greedy(holding(model, prompt), 5, logit_mask=[0, VOCABULARY]) == free
    with pytest.raises(ValueError, match="mask"):
        greedy(holding(model, prompt), 5, logit_mask=[VOCABULARY])


@pytest.mark.parametrize("seed", range(3))
def test_drafts_change_nothing(model: Model, eager: EagerOf, seed: int) -> None:
    """Drafts that are right for a while and then wrong: accepted is what greedy decoding gives, and the KV with it."""
    dice, prompt = random.Random(seed), some_tokens(25, seed=seed)
    truth = greedy(holding(model, prompt), 60)
    out: list[int] = []
    with Context(model) as ctx:
        fed = list(prompt)
        while len(out) < 45:
            right = dice.randint(0, 5)
            drafts = [*truth[len(out) : len(out) + right], *some_tokens(dice.randint(1, 3), seed=len(out))]
            step = ForwardPass(model).context(ctx).input_tokens(fed).speculative_tokens(drafts)
            accepted = step.sampler([len(fed) - 1], Sampler.greedy()).execute().accepted
            assert right < len(accepted) <= len(drafts) + 1
            out += accepted
            fed = out[-1:]
            assert ctx.last_position == len(prompt) + len(out) - 2
        ctx.fill_tokens(fed)
        assert greedy(ctx.fork(), 5) == truth[len(out) : len(out) + 5]
    assert out == truth[: len(out)]
    assert_greedy(eager("qwen3"), prompt, out)


@pytest.mark.parametrize(
    "sampler", [Sampler.greedy(), Sampler.top_p(1.3, 0.9, seed=9), Sampler.multinomial(1.1, seed=2)]
)
def test_prompt_lookup_changes_nothing_but_the_steps(model: Model, sampler: Sampler) -> None:
    prompt = some_tokens(10, seed=9) * 3
    given = {"max_tokens": 48, "auto_flush": False, "stop_tokens": NEVER, "logprobs": 2}

    def run(**more: Any) -> tuple[int, list[tuple[int, float]]]:
        with holding(model, prompt) as ctx:
            stream = ctx.generate(sampler, **given, **more)
            pieces = list(stream)
        assert [entry.token for entry in stream.logprobs] == [token for piece in pieces for token in piece]
        return len(pieces), [(entry.token, round(entry.logprob, 3)) for entry in stream.logprobs]

    plain, drafted = run(), run(draft=PromptLookup(6, longest=2))
    assert drafted[1] == plain[1]
    assert drafted[0] <= plain[0]
