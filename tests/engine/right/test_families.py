"""Every family through sessions against transformers' own eager forward, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bakehouse.engine.params import Embedding, SampleAt, Sampler, SamplerKind
from tests.engine import models
from tests.engine.right.support import (
    TOLERANCE,
    Open,
    assert_greedy,
    dense,
    distributions,
    eager_logs,
    filled,
    forward,
    some_tokens,
    start,
    tokens_of,
)

EagerOf = Callable[[str], Any]
all_families = pytest.mark.parametrize("family", models.FAMILIES)


@all_families
def test_distributions_of_every_row_equal_eager(family: str, open_: Open, eager: EagerOf) -> None:
    """Passes of every length on one context: whole chunks, page borders, single tokens, beyond the windows of 24."""
    session, tokens = open_(family), some_tokens(100)
    context = session.create_context()
    ours, at = [], 0
    for count in (1, 15, 16, 17, 33, 1, 1, 16):
        ours.append(distributions(session, tokens[at : at + count], context=context))
        at += count
    assert at == len(tokens)
    assert (torch.cat(ours) - eager_logs(eager(family), tokens)).abs().max() < TOLERANCE
    alone = distributions(session, tokens)  # without a context, in chunks
    assert (alone - eager_logs(eager(family), tokens)).abs().max() < TOLERANCE


@all_families
def test_256_greedy_tokens_through_generate_equal_eager(family: str, open_: Open, eager: EagerOf) -> None:
    """Four generations at the same time, of prompts that share a beginning, and one that begins in the middle."""
    session, shared = open_(family), some_tokens(40, seed=2)
    prompts = [shared[:37], shared[:20] + some_tokens(9, seed=3), some_tokens(5, seed=4), some_tokens(70, seed=5)]
    streams = [start(session, filled(session, prompt), max_tokens=256) for prompt in prompts[:3]]
    begun = list(next(streams[0]).tokens)
    late = start(session, filled(session, prompts[3]), max_tokens=256)
    chosen = [begun + tokens_of(streams[0]), *(tokens_of(stream) for stream in (*streams[1:], late))]
    for prompt, tokens in zip(prompts, chosen, strict=True):
        assert len(tokens) == 256
        assert_greedy(eager(family), prompt, tokens)


def test_it_is_what_transformers_generate_gives(open_: Open, eager: EagerOf) -> None:
    session, prompt = open_("qwen3"), some_tokens(33, seed=8)
    with torch.inference_mode():
        theirs = eager("qwen3").generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=256,
            eos_token_id=None,
            pad_token_id=256,
        )
    assert tokens_of(start(session, filled(session, prompt), max_tokens=256)) == theirs[0, len(prompt) :].tolist()


@all_families
def test_embeddings_equal_eager(family: str, open_: Open, eager: EagerOf) -> None:
    session, tokens, model = open_(family), some_tokens(50, seed=7), eager(family)
    with torch.inference_mode():
        wanted = getattr(model, model.base_model_prefix)(torch.tensor([tokens])).last_hidden_state[0]
    at = (SampleAt(tuple(range(len(tokens))), Sampler(SamplerKind.EMBEDDING)),)
    results = forward(session, tokens=tuple(tokens), samplers=at).results
    assert all(isinstance(result, Embedding) and len(result.data) == 64 * 4 for result in results)
    ours = torch.tensor(np.stack([np.frombuffer(result.data, "<f4") for result in results]))
    assert (ours - wanted).abs().max() < TOLERANCE


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
def test_distributions_are_scaled_and_masked_and_cut(temperature: float, open_: Open, eager: EagerOf) -> None:
    """Temperature 0 is unscaled; masked ids have no probability; entries are the first of the whole."""
    session, tokens = open_("gemma2"), some_tokens(30, seed=9)
    logits = eager_logs(eager("gemma2"), tokens)[-1]
    last = (len(tokens) - 1,)
    whole = Sampler(SamplerKind.DIST, temperature)
    few = Sampler(SamplerKind.DIST, temperature, entries=5)
    samplers = (SampleAt(last, whole), SampleAt(last, few))
    full, cut = forward(session, tokens=tuple(tokens), samplers=samplers).results
    wanted = torch.softmax(logits / (temperature or 1.0), dim=-1)
    assert (dense(full) - wanted).abs().max() < TOLERANCE
    assert list(full.probs) == sorted(full.probs, reverse=True)
    assert (list(cut.ids), list(cut.probs)) == (list(full.ids)[:5], list(full.probs)[:5])
    (masked,) = forward(session, tokens=tuple(tokens), samplers=samplers[:1], logit_mask=(100, 50)).results
    allowed = torch.softmax(logits[100:150] / (temperature or 1.0), dim=-1)
    found = torch.zeros(models.VOCABULARY, dtype=torch.float64)
    found[torch.tensor(list(masked.ids))] = torch.tensor(list(masked.probs), dtype=torch.float64)
    assert (found[100:150] - allowed).abs().max() < TOLERANCE
    assert found[:100].sum() == found[150:].sum() == 0


def test_logprobs_are_log_softmax(open_: Open, eager: EagerOf) -> None:
    session, prompt = open_("llama"), some_tokens(20, seed=11)
    hot = Sampler(temperature=1.7, seed=4)
    entries, tokens = [], []
    for chunk in start(session, filled(session, prompt), sampler=hot, logprobs=5, max_tokens=40):
        entries += chunk.logprobs
        tokens += chunk.tokens
    wanted = eager_logs(eager("llama"), prompt + tokens)[len(prompt) - 1 : -1]
    assert [entry.token for entry in entries] == tokens
    for entry, row in zip(entries, wanted, strict=True):
        assert entry.logprob == pytest.approx(float(row[entry.token]), abs=TOLERANCE)
        best = row.topk(5)
        assert [token for token, _ in entry.top] == best.indices.tolist()
        assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=TOLERANCE)
