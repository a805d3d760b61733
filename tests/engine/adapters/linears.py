"""A small stack of the engine's own linears, named like a decoder's, without a model around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bakehouse.engine.adapters.lora import LoraStore
from bakehouse.engine.plan.step import Segment, StepPlan
from bakehouse.engine.runner.torch.linear import Linear, replace_linears

HIDDEN, WIDTHS, LAYERS = 64, (64, 32, 32), 2


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(HIDDEN, width, bias=False) for width in WIDTHS)
        self.o_proj = nn.Linear(WIDTHS[0], HIDDEN, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.o_proj(torch.tanh(q) + torch.cat([k, v], dim=-1))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(x)


class Stack(nn.Module):
    """Each row by itself, so that what one row gives is easy to say."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.model.layers:  # type: ignore[union-attr]
            x = layer(x)
        return x


def served(
    dtype: torch.dtype = torch.float32, quantise: str | None = None, **settings: object
) -> tuple[Stack, list[Linear], LoraStore]:
    """The stack with the engine's linears in it, and a store on them."""
    stack = Stack().to(dtype).requires_grad_(False)
    linears = replace_linears(stack, quantise, native=None)
    return stack, linears, LoraStore(linears, dtype=dtype, **settings)  # type: ignore[arg-type]


def plan(*segments: tuple[int, int | None, int]) -> StepPlan:
    """Segments of (rows, slot, zo seed), one after the other."""
    made, start = StepPlan(), 0
    for count, slot, seed in segments:
        made.segments.append(Segment(start, count, 0, (), adapter=slot, zo_seed=seed))
        made.tokens += [0] * count
        start += count
    return made
