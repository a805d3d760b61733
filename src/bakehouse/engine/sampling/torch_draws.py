"""Who draws how: rows grouped by the path they take, and the paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bakehouse.engine.params import Sampler, SamplerKind
from bakehouse.engine.plan.step import Readout
from bakehouse.engine.sampling import torch_rows as on_rows
from bakehouse.engine.sampling.rng import uniform

#: Up to so many ids are ranked by blocks; above, the whole row is sorted.
FEW = 1024
#: How many of the most likely ids are looked at, one after the other, before a row is sorted.
_FIRST = (64, 1024)


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows of logits, [n], that draw along one path, with their parameters, [n, 1] each."""

    rows: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    most: int  # the largest top_k
    has_top_p: bool

    @classmethod
    def of(cls, picked: list[tuple[int, Sampler]], size: int, device: torch.device) -> Draws | None:
        """None where nothing was picked. A top_k of 0, or of all *size* ids, becomes *size*."""
        if not picked:
            return None
        columns = [(s.temperature, _top_k(s, size), s.top_p, s.min_p) for _, s in picked]
        table = torch.tensor(columns, dtype=torch.float64).to(device, non_blocking=True)
        temperature, top_k, top_p, min_p = table.T[:, :, None]
        return cls(
            rows=torch.tensor([row for row, _ in picked], device=device),
            temperature=temperature.float(),
            top_k=top_k.long(),
            top_p=top_p,
            min_p=min_p,
            most=max(top for _, top, _, _ in columns),
            has_top_p=any(s.top_p < 1 for _, s in picked),
        )

    def at(self, rows: Tensor) -> Draws:
        parts = {name: getattr(self, name)[rows] for name in ("temperature", "top_k", "top_p", "min_p")}
        return replace(self, **parts)


@dataclass(frozen=True, slots=True)
class Groups:
    """What a step asks for, as far as it stays the same from step to step; rows of logits by what is done to them."""

    samplers: list[Sampler]
    dists: list[int]
    plain: Draws | None  # no rank matters
    few: Draws | None  # a small top_k, perhaps more
    wide: Draws | None  # top_p or min_p
    whole: Draws | None  # a large top_k, perhaps more

    def fits(self, readouts: Sequence[Readout]) -> bool:
        """The very same samplers, in order."""
        return len(self.samplers) == len(readouts) and all(
            sampler is readout.sampler for sampler, readout in zip(self.samplers, readouts, strict=True)
        )

    @property
    def greedy(self) -> bool:
        return not self.dists and self.plain is self.few is self.wide is self.whole is None


def _top_k(sampler: Sampler, size: int) -> int:
    return min(sampler.top_k or size, size)


def group(samplers: list[Sampler], size: int, device: torch.device) -> Groups:
    plain: list[tuple[int, Sampler]] = []
    few, wide, whole = plain.copy(), plain.copy(), plain.copy()
    for row, sampler in enumerate(samplers):
        if sampler.greedy or not sampler.yields_token:
            continue
        if _top_k(sampler, size) < size:
            (few if sampler.top_k <= FEW else whole).append((row, sampler))
        else:
            (wide if sampler.top_p < 1 or sampler.min_p > 0 else plain).append((row, sampler))
    dists = [row for row, sampler in enumerate(samplers) if sampler.kind is SamplerKind.DIST]
    return Groups(samplers, dists, *(Draws.of(picked, size, device) for picked in (plain, few, wide, whole)))


def rows_of(values: Tensor, rows: Tensor | list[int]) -> Tensor:
    """*values* itself where all rows are asked for, which are in order."""
    return values if len(rows) == len(values) else values[rows]


def drawn(logits: Tensor, best: Tensor, tokens: Tensor, groups: Groups, readouts: Sequence[Readout]) -> Tensor:
    """*tokens*, with what is not greedy drawn. *best* is [n, 1], float32."""
    numbers = torch.from_numpy(uniform([r.seed for r in readouts], [r.draw for r in readouts])).to(logits.device)
    paths = (
        (groups.plain, _draw_plain),
        (groups.few, _draw_few),
        (groups.wide, _draw_wide),
        (groups.whole, _draw_whole),
    )
    for draws, path in paths:
        if draws is None:
            continue
        found = path(rows_of(logits, draws.rows), rows_of(best, draws.rows), draws, rows_of(numbers, draws.rows))
        if len(draws.rows) == len(tokens):
            return found
        tokens[draws.rows] = found
    return tokens


def _draw_plain(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    return on_rows.draw(on_rows.relative(logits, best, draws.temperature), numbers)


def _draw_few(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    ids = on_rows.best_ids(logits, draws.most)
    weights = _ranked_weights(logits, best, draws, ids)
    return on_rows.draw_among(ids, _filtered(weights, weights.sum(1, keepdim=True), draws), numbers)


def _draw_wide(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    """The most likely ids first, and all of them only for rows that need it. A GPU sorts faster than it answers."""
    total = torch.zeros(len(logits), 1, dtype=torch.float64, device=logits.device)
    if draws.has_top_p:
        total = on_rows.totals(on_rows.relative(logits, best, draws.temperature))
    tokens = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    rest = torch.arange(len(logits), device=logits.device)
    for count in () if logits.is_cuda else _FIRST:
        ids = on_rows.best_ids(logits, count)
        weights = _ranked_weights(logits, best, draws, ids)
        enough = _enough(weights, total, draws)
        tokens[rest] = on_rows.draw_among(ids, _filtered(weights, total, draws), numbers)
        if bool(enough.all()):
            return tokens
        lacking = (~enough).nonzero()[:, 0]
        rest, total, numbers = rest[lacking], total[lacking], numbers[lacking]
        logits, best, draws = logits[lacking], best[lacking], draws.at(lacking)
    tokens[rest] = _draw_whole(logits, best, draws, numbers)
    return tokens


def _draw_whole(logits: Tensor, best: Tensor, draws: Draws, numbers: Tensor) -> Tensor:
    ids = on_rows.all_ids(logits)
    weights = _ranked_weights(logits, best, draws, ids)
    weights = _filtered(weights, weights.sum(1, keepdim=True), draws)
    return on_rows.draw(torch.zeros_like(logits).scatter_(1, ids, weights.to(logits.dtype)), numbers)


def _ranked_weights(logits: Tensor, best: Tensor, draws: Draws, ids: Tensor) -> Tensor:
    """float64, relative to the largest; 0 beyond top_k. *ids* are in order, best first."""
    weights = on_rows.relative(logits.gather(1, ids).double(), best, draws.temperature)
    return weights.masked_fill_(torch.arange(ids.shape[1], device=ids.device) >= draws.top_k, 0)


def _filtered(weights: Tensor, total: Tensor, draws: Draws) -> Tensor:
    """*weights*, best first, after top_p and min_p, in place."""
    if draws.has_top_p:
        weights *= on_rows.nucleus(weights, total, draws.top_p)
    return weights.masked_fill_(weights < draws.min_p, 0)


def _enough(weights: Tensor, total: Tensor, draws: Draws) -> Tensor:
    """By row: does every id that stays have its weight among *weights*, which are the largest?"""
    by_top_p = (draws.top_p < 1) & (weights.sum(1, keepdim=True) >= draws.top_p * total)
    return (by_top_p | (weights[:, -1:] < draws.min_p))[:, 0]
