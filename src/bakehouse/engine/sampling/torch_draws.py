"""Who draws how: rows grouped by the path they take, and the paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bakehouse.engine.params import Sampler, SamplerKind
from bakehouse.engine.plan.step import Readout
from bakehouse.engine.sampling import torch_rows as on_rows
from bakehouse.engine.sampling.rng import uniform

#: Up to so many ids are ranked by blocks; above, the whole row is sorted.
FEW = 1024
#: How many of the most likely ids are looked at before a row is sorted for top_p.
_NUCLEUS = 512


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows of logits that draw along one path, with their parameters, [n, 1] each."""

    rows: list[int]
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    most: int  # the largest top_k
    has_top_k: bool
    has_min_p: bool

    @classmethod
    def of(cls, picked: list[tuple[int, Sampler]], size: int, device: torch.device) -> Draws | None:
        """None where nothing was picked. A top_k of 0, or of all *size* ids, becomes *size*."""
        if not picked:
            return None
        columns = [(s.temperature, _top_k(s, size), s.top_p, s.min_p) for _, s in picked]
        table = torch.tensor(columns, dtype=torch.float64).to(device, non_blocking=True)
        temperature, top_k, top_p, min_p = table.T[:, :, None]
        return cls(
            rows=[row for row, _ in picked],
            temperature=temperature.float(),
            top_k=top_k.long(),
            top_p=top_p,
            min_p=min_p,
            most=max(top for _, top, _, _ in columns),
            has_top_k=any(top < size for _, top, _, _ in columns),
            has_min_p=any(s.min_p > 0 for _, s in picked),
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """What a step asks for, as far as it stays the same from step to step; rows of logits by what is done to them."""

    samplers: list[Sampler]
    dists: list[int]
    plain: Draws | None  # no rank matters
    few: Draws | None  # a small top_k, perhaps more
    wide: Draws | None  # top_p, or a large top_k

    def fits(self, readouts: Sequence[Readout]) -> bool:
        """The very same samplers, in order."""
        return len(self.samplers) == len(readouts) and all(
            sampler is readout.sampler for sampler, readout in zip(self.samplers, readouts, strict=True)
        )

    @property
    def greedy(self) -> bool:
        return not self.dists and self.plain is None and self.few is None and self.wide is None


def _top_k(sampler: Sampler, size: int) -> int:
    return min(sampler.top_k or size, size)


def group(samplers: list[Sampler], size: int, device: torch.device) -> Groups:
    plain, few, wide = [], [], []
    for row, sampler in enumerate(samplers):
        if sampler.greedy or not sampler.yields_token:
            continue
        if _top_k(sampler, size) < size and sampler.top_k <= FEW:
            few.append((row, sampler))
        elif sampler.top_p < 1 or _top_k(sampler, size) < size:
            wide.append((row, sampler))
        else:
            plain.append((row, sampler))
    dists = [row for row, sampler in enumerate(samplers) if sampler.kind is SamplerKind.DIST]
    return Groups(samplers, dists, *(Draws.of(picked, size, device) for picked in (plain, few, wide)))


def rows_of(values: Tensor, rows: list[int]) -> Tensor:
    """*values* itself where all rows are asked for, which are in order."""
    return values if len(rows) == len(values) else values[rows]


def drawn(logits: Tensor, best: Tensor, tokens: Tensor, groups: Groups, readouts: Sequence[Readout]) -> Tensor:
    """*tokens*, with what is not greedy drawn."""
    numbers = torch.from_numpy(uniform([r.seed for r in readouts], [r.draw for r in readouts])).to(logits.device)
    for draws, path in ((groups.plain, _draw_plain), (groups.few, _draw_few), (groups.wide, _draw_wide)):
        if draws is None:
            continue
        found = path(rows_of(logits, draws.rows), rows_of(best, draws.rows), draws, rows_of(numbers, draws.rows))
        if len(draws.rows) == len(tokens):
            return found
        tokens[draws.rows] = found
    return tokens


def _draw_plain(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    weights = on_rows.relative(logits, best, draws.temperature)
    return on_rows.draw(_at_least(weights, draws), numbers)


def _draw_few(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    ids = on_rows.best_ids(logits, draws.most)
    weights = on_rows.relative(logits.gather(1, ids).double(), best, draws.temperature)
    weights.masked_fill_(torch.arange(ids.shape[1], device=ids.device) >= draws.top_k, 0)
    weights *= on_rows.nucleus(weights, weights.sum(1, keepdim=True), draws.top_p)
    return on_rows.draw_among(ids, _at_least(weights, draws), numbers)


def _draw_wide(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    """Tries the most likely ids first, which mostly spares sorting all; on a GPU sorting is cheaper than asking."""
    weights = on_rows.relative(logits, best, draws.temperature)
    if logits.is_cuda or draws.has_top_k:
        return _draw_sorted(logits, weights, draws, numbers, slice(None))
    ids = on_rows.best_ids(logits, _NUCLEUS)
    total = on_rows.totals(weights)
    few = weights.gather(1, ids).double()
    enough = few.sum(1, keepdim=True) >= draws.top_p * total
    few *= on_rows.nucleus(few, total, draws.top_p)
    tokens = on_rows.draw_among(ids, _at_least(few, draws), numbers)
    rest = (~enough[:, 0]).nonzero()[:, 0]
    if rest.numel():
        tokens[rest] = _draw_sorted(logits[rest], weights[rest], draws, numbers[rest], rest)
    return tokens


def _draw_sorted(logits: Tensor, weights: Tensor, draws: Draws, numbers: Tensor, rows: Any) -> Tensor:
    ids = logits.sort(dim=1, descending=True, stable=True).indices
    ranked = weights.gather(1, ids).double()
    ranked.masked_fill_(torch.arange(ids.shape[1], device=ids.device) >= draws.top_k[rows], 0)
    ranked *= on_rows.nucleus(ranked, ranked.sum(1, keepdim=True), draws.top_p[rows])
    kept = torch.zeros_like(weights).scatter_(1, ids, ranked.to(weights.dtype))
    return on_rows.draw(_at_least(kept, draws, rows), numbers)


def _at_least(weights: Tensor, draws: Draws, rows: Any = slice(None)) -> Tensor:
    return weights.masked_fill_(weights < draws.min_p[rows], 0) if draws.has_min_p else weights
