"""What these tests ask of a session, and what transformers answers to the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from bakehouse.engine.params import (
    GREEDY,
    Distribution,
    ForwardRequest,
    GenerateRequest,
    SampleAt,
    Sampler,
    SamplerKind,
    Stop,
)
from bakehouse.engine.session import Session
from bakehouse.engine.streams import Stream
from tests.engine.models import VOCABULARY

TOLERANCE = 1e-4
WAIT_S = 60
NEVER = Stop(tokens=())
DIST = Sampler(SamplerKind.DIST)


class Open(Protocol):
    def __call__(self, family: str = ..., owner: str = ..., program: str = ..., **options: Any) -> Session: ...


def some_tokens(count: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(token) for token in torch.randint(0, VOCABULARY, (count,), generator=generator)]


def dense(distribution: Any) -> Tensor:
    """Probabilities by id, ``[vocabulary]``, in float64."""
    assert isinstance(distribution, Distribution)
    assert len(distribution.ids) == VOCABULARY
    probs = torch.zeros(VOCABULARY, dtype=torch.float64)
    probs[torch.tensor(list(distribution.ids))] = torch.tensor(list(distribution.probs), dtype=torch.float64)
    return probs


def forward(session: Session, **request: Any) -> Any:
    return session.forward(ForwardRequest(**request)).result(WAIT_S)


def distributions(session: Session, tokens: Sequence[int], **request: Any) -> Tensor:
    """Log-probabilities after each of *tokens*, ``[tokens, vocabulary]``, by one forward pass."""
    every = (SampleAt(tuple(range(len(tokens))), DIST),)
    output = forward(session, tokens=tuple(tokens), samplers=every, **request)
    return torch.stack([dense(result) for result in output.results]).log()


def logs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.double(), dim=-1)


def eager_logs(model: Any, tokens: Sequence[int], **options: Any) -> Tensor:
    """The same of transformers, by one pass over everything."""
    with torch.inference_mode():
        return logs(model(torch.tensor([list(tokens)]), **options).logits[0])


def filled(session: Session, tokens: Sequence[int], buffered: int = 1) -> int:
    """A context whose last *buffered* tokens have no KV."""
    context = session.create_context()
    run = len(tokens) - buffered
    if run:
        session.append_tokens(context, [*tokens[:run], 0])
        session.flush(context).result(WAIT_S)
        session.set_buffer(context, [])
    session.append_tokens(context, tokens[run:])
    return context


def start(session: Session, context: int, **request: Any) -> Stream:
    options = {"sampler": GREEDY, "stop": NEVER, "max_tokens": 24, **request}
    return session.generate(GenerateRequest(context=context, **options))


def tokens_of(stream: Stream) -> list[int]:
    return [token for chunk in stream for token in chunk.tokens]


def assert_greedy(model: Any, prompt: Sequence[int], chosen: Sequence[int]) -> None:
    """*chosen* is what transformers picks, token by token: each is the best of its pass over what stands before."""
    wanted = eager_logs(model, [*prompt, *chosen])[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    assert list(chosen) == wanted
