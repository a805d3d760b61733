"""What these tests share: served models by family, tokens of no meaning, and what transformers says to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from inferlet import Context, Model, Sampler
from torch import Tensor

from bakehouse.engine.model import ServedModel
from bakehouse.inferlets.base import Services
from tests.engine.models import VOCABULARY

TOLERANCE = 1e-4
NEVER: list[int] = []
"""No token ends a generation."""


class Served:
    """Models by name; each is made once."""

    def __init__(self, make: Callable[[str], ServedModel]) -> None:
        self._make = make
        self._made: dict[str, ServedModel] = {}

    def __getitem__(self, family: str) -> ServedModel:
        if family not in self._made:
            self._made[family] = self._make(family)
        return self._made[family]

    def used(self) -> list[ServedModel]:
        return list(self._made.values())

    def close(self) -> None:
        for model in self._made.values():
            model.close()


def some_tokens(count: int, seed: int = 1, below: int = 256) -> list[int]:
    """Ids of bytes; those of a chat's marks are above."""
    generator = torch.Generator().manual_seed(seed)
    return [int(token) for token in torch.randint(0, below, (count,), generator=generator)]


def holding(model: Model, tokens: Sequence[int], *, buffered: int = 1) -> Context:
    """A context of *tokens*, the last *buffered* of them without KV."""
    ctx = Context(model)
    ctx.fill_tokens(tokens[: len(tokens) - buffered + 1])
    ctx.flush()
    ctx.fill_tokens(tokens[len(tokens) - buffered + 1 :])
    return ctx


def greedy(ctx: Context, count: int, **options: Any) -> list[int]:
    stream = ctx.generate(Sampler.greedy(), max_tokens=count, auto_flush=False, stop_tokens=NEVER, **options)
    return stream.tokens()


def eager_logs(model: Any, tokens: Sequence[int], **options: Any) -> Tensor:
    """Log-probabilities after each of *tokens* by transformers, ``[tokens, vocabulary]``."""
    with torch.inference_mode():
        logits = model(torch.tensor([list(tokens)]), **options).logits[0]
    return torch.log_softmax(logits.double(), dim=-1)


def assert_greedy(model: Any, prompt: Sequence[int], chosen: Sequence[int]) -> None:
    """*chosen* is what transformers picks, token by token."""
    wanted = eager_logs(model, [*prompt, *chosen])[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    assert list(chosen) == wanted


def dense(distribution: tuple[Sequence[int], Sequence[float]]) -> Tensor:
    """Probabilities by id, ``[vocabulary]``."""
    ids, probabilities = distribution
    found = torch.zeros(VOCABULARY, dtype=torch.float64)
    found[torch.tensor(list(ids))] = torch.tensor(list(probabilities), dtype=torch.float64)
    return found


class NoServices:
    """For programs that ask nobody but the engine."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name}: these tests have no services")


def no_services() -> Services:
    return NoServices()  # type: ignore[return-value]
