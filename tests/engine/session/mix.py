"""Programs of every kind, each a function of its session and a number; what they return must not depend on company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bakehouse.engine import brle
from bakehouse.engine.params import (
    GREEDY,
    Distribution,
    Embedding,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    Penalties,
    PromptLookup,
    SampleAt,
    Sampler,
    SamplerKind,
    Stop,
)
from bakehouse.engine.session import Session
from tests.engine.session.support import generate, read, text_context, tokens_of

Program = Callable[[Session, int], Any]

NEVER = Stop(tokens=())
SHARED = "All programs of this bakery begin with the same words, so that pages are shared. "


def prompt(number: int) -> str:
    """Some share a beginning, some are equal, all have lengths of their own."""
    return SHARED[: 16 * (number % 6)] + "ab c" * (number % 5 + 1) + str(number % 7)


def coarse(session: Session, number: int) -> Any:
    context = text_context(session, prompt(number))
    kinds = [
        GREEDY,
        Sampler(SamplerKind.TOP_P, 0.9, top_p=0.9, seed=number + 1),
        Sampler(SamplerKind.TOP_K, 1.1, top_k=20, seed=number + 1),
        Sampler(SamplerKind.MIN_P, 1.0, min_p=0.05, seed=number + 1),
    ]
    penalties = Penalties(repetition=1.2, frequency=0.2) if number % 3 == 0 else Penalties()
    return generate(session, context, sampler=kinds[number % 4], penalties=penalties, max_tokens=24)


def drafted(session: Session, number: int) -> Any:
    context = text_context(session, prompt(number) * 2)
    sampler = GREEDY if number % 2 else Sampler(temperature=0.7, seed=number + 1)
    draft = PromptLookup(tokens=4, longest=2)
    return generate(session, context, sampler=sampler, draft=draft, max_tokens=24, stop=NEVER)


def constrained(session: Session, number: int) -> Any:
    context = text_context(session, prompt(number))
    grammar = GrammarSpec("regex", "[a-f]{3,9}(, [0-9]{1,4}){2,4}")
    sampler = Sampler(temperature=1.2, seed=number + 1)
    return generate(session, context, sampler=sampler, grammar=grammar, max_tokens=30)


def token_by_token(session: Session, number: int) -> Any:
    context = text_context(session, prompt(number))
    session.flush(context).result(60)
    (token,) = session.context_state(context).buffered
    session.set_buffer(context, [])
    sampler = GREEDY if number % 2 else Sampler(temperature=0.9, seed=number + 1)
    out = []
    for _ in range(16):
        request = ForwardRequest(context=context, tokens=(token,), samplers=(SampleAt((0,), sampler),), logprobs=1)
        (token,) = session.forward(request).result(60).results
        out.append(token)
    return out


def windowed(session: Session, number: int) -> Any:
    """Each token sees a window and a sink, by explicit masks."""
    context = session.create_context()
    tokens = session.encode(prompt(number))
    out: list[Any] = []
    position = 0
    for _ in range(10):
        positions = tuple(range(position, position + len(tokens)))
        request = ForwardRequest(
            context=context,
            tokens=tuple(tokens),
            positions=positions,
            masks=tuple(brle.sliding(p, 12 + number % 5, sinks=2) for p in positions),
            samplers=(SampleAt((len(tokens) - 1,), GREEDY),),
        )
        (token,) = session.forward(request).result(60).results
        assert isinstance(token, int)
        out.append(token)
        position += len(tokens)
        tokens = [token]
    return out


def forking(session: Session, number: int) -> Any:
    trunk = text_context(session, prompt(number))
    session.flush(trunk).result(60)
    out = []
    for beam in range(3):
        child = session.fork_context(trunk)
        session.append_tokens(child, [97 + beam] * (beam + 1))
        stream = session.generate(GenerateRequest(context=child, sampler=GREEDY, max_tokens=12, stop=NEVER))
        got = read(stream, 5)
        grandchild = session.fork_context(child)
        stream.close()
        session.append_tokens(grandchild, [100])
        out.append((got, generate(session, grandchild, sampler=GREEDY, max_tokens=4, stop=NEVER)))
        out.append((beam, generate(session, child, sampler=GREEDY, max_tokens=4, stop=NEVER)))
        session.release_context(child)
    return out


def verified(session: Session, number: int) -> Any:
    """Drafts of the program's own, half of them wrong."""
    context = session.create_context()
    tokens = tuple(session.encode(prompt(number)))
    out: list[int] = []
    for step in range(8):
        request = ForwardRequest(
            context=context,
            tokens=tokens,
            samplers=(SampleAt((len(tokens) - 1,), GREEDY),),
            draft_tokens=(32, 97 + step),
        )
        accepted = session.forward(request).result(60).accepted
        out += accepted
        tokens = accepted[-1:]
    return out


def measured(session: Session, number: int) -> Any:
    """Distributions and embeddings: which ids lead, and a hidden state to three digits."""
    tokens = tuple(session.encode(prompt(number)))
    last = len(tokens) - 1
    request = ForwardRequest(
        tokens=tokens,
        samplers=(
            SampleAt((0, last), Sampler(SamplerKind.DIST, entries=3)),
            SampleAt((last,), Sampler(SamplerKind.EMBEDDING)),
        ),
    )
    first, second, hidden = session.forward(request).result(60).results
    assert isinstance(first, Distribution) and isinstance(second, Distribution) and isinstance(hidden, Embedding)
    numbers = memoryview(hidden.data).cast("f")
    return list(first.ids), list(second.ids), [round(x, 2) + 0.0 for x in list(numbers)[:8]]


def adapted(session: Session, number: int) -> Any:
    adapter = session.lookup_adapter(f"bread-{number % 2}")
    assert adapter is not None
    context = text_context(session, prompt(number))
    seed = 0 if number % 4 < 2 else number
    return generate(session, context, sampler=GREEDY, adapter=adapter, zo_seed=seed, max_tokens=16, stop=NEVER)


KINDS: list[Program] = [
    coarse,
    drafted,
    constrained,
    token_by_token,
    windowed,
    forking,
    verified,
    measured,
    adapted,
]


def program(number: int) -> Program:
    return KINDS[number % len(KINDS)]


__all__ = ["KINDS", "program", "prompt", "tokens_of"]
