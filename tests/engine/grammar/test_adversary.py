"""Constrained output finishes and validates, whatever a model would rather write."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bakehouse.engine.grammar.llg import LlgCompiler
from bakehouse.engine.params import GrammarSpec
from bakehouse.engine.tokenizer.base import Tokenizer
from tests.engine.grammar.adversary import LIKES, Adversary
from tests.engine.grammar.schemas import Case, endless_case, of_schema, random_case
from tests.engine.grammar.vocabularies import BPE_STOP, BYTE_STOP, bpe_tokenizer, byte_tokenizer

TOKENS = 2000
VOCABULARIES = [
    pytest.param(byte_tokenizer, BYTE_STOP, 1000, 150, id="bytes"),
    pytest.param(bpe_tokenizer, BPE_STOP, 0, 500, id="bpe"),
]


def run(compiler: LlgCompiler, case: Case, adversary: Adversary) -> bool:
    """Whether one generation finished. What finished is valid, and what cannot go on for ever does finish."""
    out = adversary.run(compiler.matcher(case.spec), TOKENS)
    assert out is not None or not case.ends, f"it never ended: {case.spec}"
    assert out is None or case.valid(out.decode()), f"{out!r} is not {case.spec}"
    return out is not None


@pytest.mark.parametrize(("make", "stop", "first", "count"), VOCABULARIES)
def test_random_grammars_against_the_worst_sampler(
    make: Callable[[], Tokenizer], stop: tuple[int, ...], first: int, count: int
) -> None:
    compiler = LlgCompiler(make(), stop)
    likes = list(LIKES)
    finished = 0
    for seed in range(first, first + count):
        like, willing = likes[seed % len(likes)], seed % 3 == 0
        finished += run(compiler, random_case(seed), Adversary(make(), stop, like, seed, willing))
    assert finished / count >= 0.95


def test_grammars_without_an_end_against_an_indifferent_sampler() -> None:
    compiler = LlgCompiler(bpe_tokenizer(), BPE_STOP)
    ran = [run(compiler, endless_case(n), Adversary(bpe_tokenizer(), BPE_STOP, "random", n, True)) for n in range(60)]
    assert sum(ran) / len(ran) >= 0.95


@pytest.mark.parametrize("like", LIKES)
def test_any_json_is_json(like: str) -> None:
    compiler = LlgCompiler(bpe_tokenizer(), BPE_STOP)
    spec = GrammarSpec("json")
    case = Case(spec, lambda text: json.loads(text) is not ..., ends=False)
    for seed in range(5):
        run(compiler, case, Adversary(bpe_tokenizer(), BPE_STOP, like, seed, willing=True))


def test_the_checker_is_strict() -> None:
    """These tests would prove nothing with a validator that lets formats pass."""
    case = of_schema({"type": "string", "format": "date"}, ends=True)
    assert case.valid('"2024-02-29"')
    assert not case.valid('"2023-02-29"')
