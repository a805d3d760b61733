"""Evolution strategies on LoRA weights (zo): a diagonal CMA-ES in each layer, on deltas of the q, k and v projections.

A candidate is a seed. Its weights are ``mean + S * Z(seed)``, elementwise, where Z is made again from the seed each
time (`philox`) and S = sigma * sqrt(C). Seed 0 is the mean itself: no noise in any layer. The update is that of Hansen,
"The CMA evolution strategy: a tutorial" (arXiv 1604.00772), with the matrix C kept to its diagonal.

Layout: per layer ``down`` [in, 3 rank] and ``up`` [rank, dq + dk + dv], the blocks q, k, v side by side; rows of the
batch are multiplied from the left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from bakehouse.engine.adapters import philox
from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.peft import Delta
from bakehouse.engine.adapters.strategy import (
    EPS,
    MAX_VARIANCE,
    MIN_VARIANCE,
    Constants,
    best_first,
    check_generation,
)

#: What is added to layer number and seed for the blocks q, k, v.
BLOCK_OFFSETS = (0, 100, 200)


@dataclass(frozen=True, slots=True)
class LayerSite:
    """Where a layer's deltas act. ``index``: the layer's number in the model; ``modules``: its q, k, v projection."""

    index: int
    modules: tuple[str, str, str]
    inputs: int
    widths: tuple[int, int, int]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The columns of ``up`` that belong to q, k and v."""
        return list(pairwise(accumulate(self.widths, initial=0)))


@dataclass(frozen=True, slots=True)
class Paths:
    """The optimiser's memory of one tensor, all of the tensor's shape and float32: p_s, p_c and the diagonal of C."""

    step: Tensor
    rank_one: Tensor
    variance: Tensor

    @classmethod
    def start(cls, like: Tensor) -> Paths:
        zeros = torch.zeros(like.shape, dtype=torch.float32, device=like.device)
        return cls(zeros, zeros.clone(), torch.ones_like(zeros))


@dataclass(frozen=True, slots=True)
class LayerState:
    """Means in the model's dtype; never changed in place, so that copies may share them."""

    site: LayerSite
    down: Tensor
    up: Tensor
    sigma: float
    of_down: Paths
    of_up: Paths

    def noise(self, seed: int) -> tuple[Tensor, Tensor]:
        """S * Z of one candidate for ``down`` and ``up``, float32. Zero for seed 0."""
        blocks = [self.block(block, seed) for block in range(3)]
        return torch.cat([down for down, _ in blocks], 1), torch.cat([up for _, up in blocks], 1)

    def block(self, block: int, seed: int) -> tuple[Tensor, Tensor]:
        """`noise` of q, k or v alone (0, 1, 2): [in, rank] and [rank, width]."""
        low, high = self.columns(block)
        start, stop = self.site.bounds[block]
        down, up = self.of_down.variance[:, low:high], self.of_up.variance[:, start:stop]
        if seed == 0:
            return torch.zeros_like(down), torch.zeros_like(up)
        shift = self.site.index + BLOCK_OFFSETS[block]
        return (
            _standard(seed + shift, down).mul_(down.sqrt()).mul_(self.sigma),
            _standard(seed - shift, up).mul_(up.sqrt()).mul_(self.sigma),
        )

    def columns(self, block: int) -> tuple[int, int]:
        """The columns of ``down`` that belong to q, k or v."""
        rank = self.up.shape[0]
        return block * rank, (block + 1) * rank


def _standard(seed: int, like: Tensor) -> Tensor:
    """Z(seed) of the shape of *like*. An effective seed of exactly 0 is no noise."""
    if seed == 0:
        return torch.zeros(like.shape, device=like.device)
    return philox.normals(seed, like.shape[0], like.shape[1], like.device)


@dataclass(frozen=True, slots=True)
class State:
    """The optimiser of one adapter. ``update`` gives a new one, so a failed update changes nothing."""

    params: ZoParams
    layers: tuple[LayerState, ...]


def start(params: ZoParams, sites: Sequence[LayerSite], dtype: torch.dtype, random: torch.Generator) -> State:
    """Fresh weights on *random*'s device: ``down`` Kaiming uniform with a = sqrt(5), ``up`` zero."""
    return State(params, tuple(_fresh(params, site, dtype, random) for site in sites))


def _fresh(params: ZoParams, site: LayerSite, dtype: torch.dtype, random: torch.Generator) -> LayerState:
    down = torch.empty(site.inputs, 3 * params.rank, device=random.device)
    # torch counts the second dimension as the fan-in, which is the first one here.
    torch.nn.init.kaiming_uniform_(down.T, a=math.sqrt(5), generator=random)
    up = torch.zeros(params.rank, sum(site.widths), device=random.device, dtype=dtype)
    return LayerState(site, down.to(dtype), up, params.sigma, Paths.start(down), Paths.start(up))


def update(state: State, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> State:
    """One generation. Higher scores are better; of equal ones the earlier counts as better.

    Raises `BadRequest` unless there are exactly ``population`` finite scores and as many 64-bit seeds.
    """
    check_generation(state.params, scores, seeds, max_sigma)
    best = best_first(scores, seeds)
    return replace(state, layers=tuple(_updated(layer, state.params, best, max_sigma) for layer in state.layers))


def _updated(layer: LayerState, params: ZoParams, best: Sequence[int], max_sigma: float) -> LayerState:
    k = Constants.of(params, layer.down.numel() + layer.up.numel())
    moves = _weighted(layer, k, best)
    before, olds = (layer.down, layer.up), (layer.of_down, layer.of_up)
    means = [(mean.float() + move).to(mean.dtype) for mean, (move, _) in zip(before, moves, strict=True)]
    steps = [(new.float() - old.float()) / (layer.sigma + EPS) for new, old in zip(means, before, strict=True)]
    gain = math.sqrt(k.cs * (2 - k.cs) * k.mueff)
    paths = [
        (1 - k.cs) * old.step + gain * step / (old.variance.sqrt() + EPS) for old, step in zip(olds, steps, strict=True)
    ]
    length = math.hypot(*(float(torch.linalg.vector_norm(path)) for path in paths))
    news = [
        _moved(old, path, step, squares, k, length)
        for old, path, step, (_, squares) in zip(olds, paths, steps, moves, strict=True)
    ]
    return LayerState(layer.site, means[0], means[1], k.sigma(layer.sigma, length, max_sigma), news[0], news[1])


def _weighted(layer: LayerState, k: Constants, best: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """For ``down`` and ``up``: the weighted sum of the best candidates' noises, and of their squares over sigma^2."""
    sums = [(torch.zeros_like(old.variance), torch.zeros_like(old.variance)) for old in (layer.of_down, layer.of_up)]
    for weight, seed in zip(k.weights, best, strict=False):
        for (move, squares), noise in zip(sums, layer.noise(seed), strict=True):
            move.add_(noise, alpha=weight)
            squares.addcmul_(noise, noise, value=weight / layer.sigma**2)
    return sums


def _moved(old: Paths, path: Tensor, step: Tensor, squares: Tensor, k: Constants, length: float) -> Paths:
    rank_one = (1 - k.cc) * old.rank_one + k.straight(length) * math.sqrt(k.cc * (2 - k.cc) * k.mueff) * step
    variance = (1 - k.c1 - k.cmu) * old.variance + k.c1 * rank_one.square() + k.cmu * squares
    return Paths(path, rank_one, variance.clamp_(MIN_VARIANCE, MAX_VARIANCE))


def means(state: State) -> dict[str, Delta]:
    """The adapter itself, by module: views of the means."""
    deltas: dict[str, Delta] = {}
    for layer in state.layers:
        for block, module in enumerate(layer.site.modules):
            (low, high), (start, stop) = layer.columns(block), layer.site.bounds[block]
            deltas[module] = Delta(layer.down[:, low:high], layer.up[:, start:stop], state.params.alpha)
    return deltas


def candidate(state: State, layer: int, block: int, seed: int) -> Delta:
    """What the candidate *seed* adds to the mean of one module: its noise alone, in the mean's dtype."""
    down, up = state.layers[layer].block(block, seed)
    dtype = state.layers[layer].down.dtype
    return Delta(down.to(dtype), up.to(dtype), state.params.alpha)
