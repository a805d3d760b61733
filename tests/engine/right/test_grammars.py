"""Constrained generations of a model with random weights, which would rather write anything else."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from bakehouse.engine.params import FinishReason, GenerateRequest, GrammarSpec, PromptLookup, Sampler
from bakehouse.engine.session import Session
from bakehouse.engine.streams import Stream
from tests.engine.grammar.schemas import random_case
from tests.engine.right.support import WAIT_S, Open, filled, some_tokens

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["bread", "cake", None]},
        "grams": {"type": "integer", "minimum": 10, "maximum": 2500},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,6}$"}, "maxItems": 3},
        "baked": {"type": "string", "format": "date"},
    },
    "required": ["name", "grams", "baked"],
}


def begin(session: Session, grammar: GrammarSpec, seed: int, **options: Any) -> Stream:
    context = filled(session, some_tokens(7, seed=seed))
    sampler = Sampler(temperature=1.5, seed=seed + 1)
    request = {"sampler": sampler, "grammar": grammar, "max_tokens": 600, **options}
    return session.generate(GenerateRequest(context=context, **request))


def outcome(session: Session, stream: Stream) -> tuple[str, FinishReason | None]:
    chunks = list(stream)
    return session.decode([token for chunk in chunks for token in chunk.tokens]), chunks[-1].finish


@pytest.mark.parametrize("draft", [None, PromptLookup()])
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_what_finishes_validates(family: str, draft: PromptLookup | None, open_: Open) -> None:
    session = open_(family)
    validator = jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True)
    grammar = GrammarSpec("json_schema", json.dumps(SCHEMA))
    finished = 0
    for stream in [begin(session, grammar, seed, draft=draft) for seed in range(10)]:
        text, finish = outcome(session, stream)
        if finish is FinishReason.STOP:
            finished += 1
            validator.validate(json.loads(text))
    assert finished >= 9


def test_random_grammars_in_one_batch(open_: Open) -> None:
    """Forty at the same time, of every kind; what they write does not depend on the others."""
    session = open_("llama")
    cases = [random_case(seed) for seed in range(2000, 2040)]
    streams = [begin(session, case.spec, n, max_tokens=800) for n, case in enumerate(cases)]
    finished = 0
    for n, (case, stream) in enumerate(zip(cases, streams, strict=True)):
        text, finish = outcome(session, stream)
        if finish is FinishReason.STOP:
            finished += 1
            assert case.valid(text), f"{n}: {text!r} is not {case.spec}"
    assert finished >= 38


@pytest.mark.parametrize("seed", range(3))
def test_a_regular_expression_and_ebnf_say_the_same(seed: int, open_: Open) -> None:
    session = open_("llama")
    regex = GrammarSpec("regex", "(ab|cd){3}[0-9]{2,4}")
    ebnf = GrammarSpec("ebnf", 'root ::= ("ab" | "cd"){3} [0-9]{2,4}')
    texts = {outcome(session, begin(session, grammar, seed))[0] for grammar in (regex, ebnf)}
    assert len(texts) == 1
    assert re.fullmatch("(ab|cd){3}[0-9]{2,4}", texts.pop())


def test_the_loop_by_hand_gives_what_a_grammar_gives(open_: Open) -> None:
    """Mask, one token, accept: what a program without matchers in the engine would do."""
    session = open_("qwen3")
    grammar = GrammarSpec("regex", "[a-m]{4,8} is [0-9]{1,5}!")
    whole = filled(session, some_tokens(9))
    request = GenerateRequest(context=whole, sampler=Sampler(temperature=0), grammar=grammar, max_tokens=40)
    expected = [token for chunk in session.generate(request) for token in chunk.tokens]
    matcher = session.create_matcher(grammar).result(WAIT_S)
    context = filled(session, some_tokens(9))
    out: list[int] = []
    while True:
        step = GenerateRequest(
            context=context,
            sampler=Sampler(temperature=0),
            max_tokens=1,
            logit_mask=session.matcher_mask(matcher),
        )
        got = [token for chunk in session.generate(step) for token in chunk.tokens]
        if not got:
            break
        session.matcher_accept(matcher, got)
        out += got
    assert out == expected
    assert re.fullmatch("[a-m]{4,8} is [0-9]{1,5}!", session.decode(out))
