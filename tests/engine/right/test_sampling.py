"""Sampling through sessions on a real model: seeds in any company, penalties, and drafts that change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from bakehouse.engine.params import (
    GREEDY,
    GenerateRequest,
    Penalties,
    PromptLookup,
    SampleAt,
    Sampler,
    SamplerKind,
    Stop,
)
from bakehouse.engine.session import Session
from tests.engine.models import VOCABULARY
from tests.engine.right.support import (
    TOLERANCE,
    Open,
    assert_greedy,
    eager_logs,
    filled,
    forward,
    some_tokens,
    start,
    tokens_of,
)

EagerOf = Callable[[str], Any]
KINDS = {
    "multinomial": Sampler(temperature=1.3, seed=5),
    "top_k": Sampler(SamplerKind.TOP_K, 1.5, top_k=20, seed=6),
    "top_p": Sampler(SamplerKind.TOP_P, 1.5, top_p=0.8, seed=7),
    "min_p": Sampler(SamplerKind.MIN_P, 1.5, min_p=0.05, seed=8),
    "top_k_top_p": Sampler(SamplerKind.TOP_K_TOP_P, 1.5, top_k=30, top_p=0.9, seed=9),
    "greedy": GREEDY,
}


def company(session: Session, count: int) -> list[Any]:
    """Other generations of many kinds, prefills among them, that run beside what is looked at."""
    dice = random.Random(count)
    kinds = list(KINDS.values())
    return [
        start(session, filled(session, some_tokens(dice.randint(1, 90), seed=n)), sampler=kinds[n % 6], max_tokens=40)
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_in_any_company(kind: str, open_: Open) -> None:
    session, prompt = open_("qwen3"), some_tokens(21, seed=1)
    options = {"sampler": KINDS[kind], "max_tokens": 40}
    alone = tokens_of(start(session, filled(session, prompt), **options))
    for others in (2, 12):
        beside = company(session, others)
        assert tokens_of(start(session, filled(session, prompt), **options)) == alone
        for stream in beside:
            stream.close()
    if kind != "greedy":
        other = Sampler(**{**_fields(KINDS[kind]), "seed": 77})
        assert tokens_of(start(session, filled(session, prompt), sampler=other, max_tokens=40)) != alone


def _fields(sampler: Sampler) -> dict[str, Any]:
    return {name: getattr(sampler, name) for name in ("kind", "temperature", "top_k", "top_p", "min_p")}


def test_unseeded_programs_differ(open_: Open) -> None:
    session, prompt = open_("llama"), some_tokens(9, seed=2)
    hot = Sampler(temperature=1.5)
    several = {tuple(tokens_of(start(session, filled(session, prompt), sampler=hot))) for _ in range(4)}
    assert len(several) == 4


def test_a_token_is_drawn_as_often_as_it_is_likely(open_: Open, eager: EagerOf) -> None:
    """4,000 draws by 40 passes against the probabilities of transformers: chi-square over the likely ids."""
    session, prompt = open_("llama"), some_tokens(12, seed=3)
    last, draws = len(prompt) - 1, 4000
    counts = torch.zeros(VOCABULARY, dtype=torch.float64)
    for seed in range(1, draws // 100 + 1):
        samplers = tuple(SampleAt((last,), Sampler(temperature=1.0, seed=seed * 1000 + n)) for n in range(100))
        for token in forward(session, tokens=tuple(prompt), samplers=samplers).results:
            counts[token] += 1
    wanted = eager_logs(eager("llama"), prompt)[-1].exp() * draws
    likely = wanted >= 20
    rest = ~likely
    terms = (counts[likely] - wanted[likely]) ** 2 / wanted[likely]
    tail = (counts[rest].sum() - wanted[rest].sum()) ** 2 / wanted[rest].sum()
    freedom = int(likely.sum())
    assert freedom >= 3
    assert float(terms.sum() + tail) < freedom + 5 * (2 * freedom) ** 0.5


PENALTIES = [
    Penalties(repetition=1.4),
    Penalties(frequency=0.7),
    Penalties(presence=1.5),
    Penalties(repetition=1.2, frequency=0.3, presence=0.4, bias=((7, 4.0), (300, -5.0))),
    Penalties(bias=((11, 50.0),)),
]


@pytest.mark.parametrize("penalties", PENALTIES)
def test_penalties_are_those_of_transformers_and_of_openai(penalties: Penalties, open_: Open, eager: EagerOf) -> None:
    session, prompt = open_("qwen2"), some_tokens(30, seed=4)
    chosen = tokens_of(start(session, filled(session, prompt), penalties=penalties, max_tokens=60))
    with torch.inference_mode():
        logits = eager("qwen2")(torch.tensor([prompt + chosen])).logits[0, len(prompt) - 1 : -1]
    for step, row in enumerate(logits):
        wanted = penalised(row, prompt, chosen[:step], penalties)
        best = wanted.topk(2)
        assert best.values[0] - best.values[1] > TOLERANCE, "no clear best: another seed is needed"
        assert int(best.indices[0]) == chosen[step]


def penalised(row: Tensor, prompt: Sequence[int], generated: Sequence[int], penalties: Penalties) -> Tensor:
    seen = torch.tensor([[*prompt, *generated]])
    row = row.clone()
    if penalties.repetition != 1:
        row = RepetitionPenaltyLogitsProcessor(penalties.repetition)(seen, row[None])[0]
    for token in set(generated):  # https://platform.openai.com/docs: mu[j] - c[j] * frequency - (c[j] > 0) * presence
        row[token] -= generated.count(token) * penalties.frequency + penalties.presence
    for token, bias in penalties.bias:
        row[token] += bias
    return row


@pytest.mark.parametrize(("family", "kind"), [*(("llama", kind) for kind in KINDS), ("gemma3", "greedy")])
def test_prompt_lookup_changes_nothing_but_the_steps(family: str, kind: str, open_: Open) -> None:
    session = open_(family)
    prompt = some_tokens(12, seed=5) * 3
    for options in ({}, {"penalties": Penalties(frequency=0.2, repetition=1.1)}, {"logprobs": 2}):
        request = {"sampler": KINDS[kind], "max_tokens": 48, **options}
        plain = list(start(session, filled(session, prompt), **request))
        chunks = list(start(session, filled(session, prompt), draft=PromptLookup(6, longest=2), **request))
        assert [t for c in chunks for t in c.tokens] == [t for c in plain for t in c.tokens]
        assert [(e.token, round(e.logprob, 3)) for c in chunks for e in c.logprobs] == [
            (e.token, round(e.logprob, 3)) for c in plain for e in c.logprobs
        ]
        assert len(chunks) <= len(plain)


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("seed", range(4))
def test_drafts_of_a_program_change_nothing(family: str, seed: int, open_: Open, eager: EagerOf) -> None:
    """Drafts that are right for a while and then wrong: what is accepted is what greedy sampling gives."""
    dice = random.Random(seed)
    session, prompt = open_(family), some_tokens(25, seed=seed)
    truth = tokens_of(start(session, filled(session, prompt), max_tokens=60))
    context = session.create_context()
    fed, out, passes = tuple(prompt), [], 0
    while len(out) < 50:
        right = dice.randint(0, 5)
        drafts = (*truth[len(out) : len(out) + right], *some_tokens(dice.randint(1, 3), seed=passes))
        samplers = (SampleAt((len(fed) - 1,), GREEDY),)
        answer = forward(session, context=context, tokens=fed, draft_tokens=drafts, samplers=samplers)
        assert right < len(answer.accepted) <= len(drafts) + 1
        assert answer.results[0] == answer.accepted[0]
        out += answer.accepted
        passes += 1
        state = session.context_state(context)
        assert state.last_position == len(prompt) + len(out) - 2
        fed = answer.accepted[-1:]
    assert out == truth[: len(out)]
    assert_greedy(eager(family), prompt, out)
    session.append_tokens(context, [out[-1]])
    child = session.fork_context(context)
    assert tokens_of(start(session, child, max_tokens=5)) == truth[len(out) : len(out) + 5] or len(out) > 55


def test_stops_are_stops_with_and_without_drafts(open_: Open) -> None:
    session, prompt = open_("llama"), some_tokens(12, seed=6) * 2
    truth = tokens_of(start(session, filled(session, prompt), max_tokens=60))
    stop = Stop(tokens=(truth[30],))
    cut = truth.index(truth[30])
    for draft in (None, PromptLookup(8)):
        context = filled(session, prompt)
        request = GenerateRequest(context=context, sampler=GREEDY, stop=stop, draft=draft, max_tokens=60)
        assert [t for chunk in session.generate(request) for t in chunk.tokens] == truth[:cut]
        assert session.context_state(context).buffered == (truth[cut],)
        assert session.context_state(context).last_position == len(prompt) + cut - 1
