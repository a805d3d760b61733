"""Is an architecture one that we can run? Asked at load, by running it: each attention layer must call our function
exactly once, with arguments that we know, with a mask that is causal or a sliding window, and nothing but attention may
carry anything from one token to another. What is learned of each layer is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.runner.torch.kv import KVShape

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

#: Rows of a run, and those of one that is long enough to meet what looks at blocks of tokens.
_ROWS = 4
_MANY_ROWS = 132


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One attention layer, as the probe saw it."""

    module: nn.Module
    index: int
    shape: KVShape
    group: int
    window: int | None


@dataclass(slots=True)
class Recorder:
    """Stands in for attention while a model is probed: each row gets its own value, so that rows stay apart."""

    horizon: int
    facts: list[LayerFacts] = field(default_factory=list)
    masks: list[tuple[Tensor, MaskFunction]] = field(default_factory=list)

    def mask(self, function: MaskFunction, rows: int) -> Tensor:
        """A tensor that stands for *function* until a layer hands it over."""
        token = torch.zeros(1, 1, rows, rows)
        self.masks.append((token, function))
        return token

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        unknown: list[str],
    ) -> tuple[Tensor, None]:
        if unknown:
            raise ModelRefused(f"its attention takes arguments that are not known: {', '.join(unknown)}")
        if query.shape[0] != 1 or query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
            raise ModelRefused("its attention does not have one key per token")
        shape = KVShape(key.shape[1], key.shape[3], value.shape[3])
        index = getattr(module, "layer_idx", None)
        if not isinstance(index, int):
            raise ModelRefused("its attention layers carry no layer_idx")
        group = query.shape[1] // key.shape[1]
        self.facts.append(LayerFacts(module, index, shape, group, self._window(mask)))
        return value.repeat_interleave(group, dim=1).transpose(1, 2).contiguous(), None

    def _window(self, mask: Tensor | None) -> int | None:
        """The window that the layer's own mask has, None where it is plainly causal."""
        function = next((function for token, function in self.masks if token is mask), None)
        if function is None:
            raise ModelRefused("its attention mask is made in a way that we cannot read")
        last = self.horizon - 1
        seen = _seen(function, last, self.horizon)
        window = int(seen.sum())
        for row in {last, last // 2, last // 3, last * 2 // 3, last - 1, 1, 0}:
            at = torch.arange(self.horizon)
            if not torch.equal(_seen(function, row, self.horizon), (at <= row) & (at > row - window)):
                raise ModelRefused("its attention mask is neither causal nor a sliding window")
        return None if window == self.horizon else window


def _seen(function: MaskFunction, row: int, keys: int) -> Tensor:
    zero = torch.zeros(keys, dtype=torch.long)
    allowed = function(zero, zero, torch.full((keys,), row), torch.arange(keys))
    return torch.as_tensor(allowed).expand(keys).to(torch.bool)


_current: ContextVar[Recorder | None] = ContextVar("probe", default=None)


def current() -> Recorder | None:
    """The recorder of the probe that this thread is in."""
    return _current.get()


@contextmanager
def recording(horizon: int) -> Iterator[Recorder]:
    recorder = Recorder(horizon)
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def probe(base: nn.Module, layers: int, horizon: int, device: torch.device) -> list[LayerFacts]:
    """The facts of every attention layer of *base*, in the order of their index. Raises `ModelRefused`.

    *horizon*: up to which position masks are compared, in tokens.
    """
    first, facts = _run(base, [1, 2, 3, 4], horizon, device)
    second, _ = _run(base, [5, 2, 3, 4], horizon, device)
    _run(base, [1] * min(_MANY_ROWS, horizon), horizon, device)
    called = sorted(fact.index for fact in facts)
    if called != list(range(layers)):
        raise ModelRefused(
            f"{layers} layers, but attention was called for layers {called}: not every layer is attention"
        )
    if not torch.allclose(first[1:], second[1:], rtol=1e-3, atol=1e-3):
        raise ModelRefused("something beside attention carries state from token to token")
    return sorted(facts, key=lambda fact: fact.index)


@torch.inference_mode()
def _run(base: nn.Module, tokens: list[int], horizon: int, device: torch.device) -> tuple[Tensor, list[LayerFacts]]:
    with recording(horizon) as recorder:
        try:
            output: Any = base(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.arange(len(tokens), device=device)[None],
                use_cache=False,
            )
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as failed:
            reason = str(failed).strip().partition("\n")[0]
            raise ModelRefused(f"it could not run {len(tokens)} tokens: {type(failed).__name__}: {reason}") from failed
    return output.last_hidden_state[0].float(), recorder.facts
