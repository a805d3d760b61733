"""Operations on rows of logits [n, vocabulary], all rows at once, none of which depends on its neighbours.

A row is looked at in blocks, so that few passes are made over it and sums stay exact: ranks come from the best blocks,
draws from the sums of blocks and then from one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Ids per block when summing and when looking for the best one.
_BLOCK = 512
_LAST = torch.iinfo(torch.int64).min


def order_keys(values: Tensor, ids: Tensor) -> Tensor:
    """int64 keys that rise with float32 *values* and, among equal ones, fall with *ids*; no two in a row are equal."""
    bits = (values + 0.0).view(torch.int32)  # adding makes one zero of both
    bits ^= (bits >> 31).bitwise_and_(0x7FFFFFFF)
    return bits.to(torch.int64).bitwise_left_shift_(32).bitwise_or_(0xFFFFFFFF - ids)


def best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of each row and the lowest id that has it, [n] each; NaN where a row has one."""
    size = logits.shape[1]
    if logits.is_cuda or size < 2 * _BLOCK:
        values, ids = logits.max(dim=1)
        return values, ids
    # Several times as fast on a CPU as `max` with indices over the whole row.
    values, block = _by_block(logits, _BLOCK, torch.amax).max(dim=1, keepdim=True)
    ids = (block * _BLOCK + torch.arange(_BLOCK, device=logits.device)).clamp_(max=size - 1)
    inside = logits.gather(1, ids).argmax(dim=1, keepdim=True)
    return values[:, 0], ids.gather(1, inside)[:, 0]


def best_ids(logits: Tensor, count: int) -> Tensor:
    """The *count* most likely ids of each row, best first, equal ones by id: [n, min(count, vocabulary)].

    The best *count* ids lie in the *count* blocks whose own best are best, so only these are ranked.
    """
    size = logits.shape[1]
    count = min(count, size)
    block = max(8, min(64, 1 << (math.isqrt(size // count).bit_length())))
    if count * block * 2 > size:
        return _best_of(logits, torch.arange(size, device=logits.device).expand_as(logits), count)
    bests = _by_block(logits, block, torch.amax)
    numbers = torch.arange(bests.shape[1], device=logits.device).expand_as(bests)
    inside = torch.arange(block, device=logits.device)
    ids = (_best_of(bests, numbers, count)[:, :, None] * block + inside).flatten(1)
    return _best_of(logits.gather(1, ids.clamp(max=size - 1)), ids, count, size)


def all_ids(logits: Tensor) -> Tensor:
    """All ids of each row in that order, [n, vocabulary]."""
    if logits.is_cuda:
        return logits.sort(dim=1, descending=True, stable=True).indices
    # numpy sorts integers with vector instructions, twice as fast as torch sorts floats.
    ids = torch.arange(logits.shape[1])
    sorted_ids = torch.empty(logits.shape, dtype=torch.int64)
    for row, found in zip(logits, sorted_ids, strict=True):
        keys = order_keys(row, ids).bitwise_not_()
        keys.numpy().sort()
        torch.bitwise_and(keys, 0xFFFFFFFF, out=found)
    return sorted_ids


def _best_of(values: Tensor, ids: Tensor, count: int, size: int | None = None) -> Tensor:
    keys = order_keys(values, ids)
    if size is not None:
        keys = keys.masked_fill(ids >= size, _LAST)
    return ids.gather(1, keys.topk(count, dim=1, sorted=True).indices)


def _by_block(values: Tensor, block: int, reduce: Callable[..., Tensor]) -> Tensor:
    """*reduce* over blocks of a row, the last one shorter: [n, blocks]."""
    whole = values.shape[1] // block * block
    parts = []
    if whole:
        parts.append(reduce(torch.unflatten(values[:, :whole], 1, (-1, block)), -1))
    if whole < values.shape[1]:
        parts.append(reduce(values[:, whole:], -1)[:, None])
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def totals(weights: Tensor) -> Tensor:
    """The sum of each row in float64, [n, 1]."""
    return _by_block(weights, _BLOCK, torch.sum).double().sum(1, keepdim=True)


def relative(logits: Tensor, best: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Probabilities relative to the largest; *best* and *temperature* (absent: 1) are [n, 1]. A tensor of its own."""
    shifted = logits - best
    return (shifted if temperature is None else shifted.div_(temperature)).exp_()


def draw(weights: Tensor, numbers: Tensor) -> Tensor:
    """By row the first id at which summed *weights* exceed *numbers* [n] (float64, in [0, 1)) times their total."""
    sums = _by_block(weights, _BLOCK, torch.sum).double().cumsum(1)
    target = _below(numbers[:, None] * sums[:, -1:], sums[:, -1:])
    block = (sums <= target).sum(1, keepdim=True).clamp_(max=sums.shape[1] - 1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums), 1).gather(1, block)
    ids = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, ids.clamp(max=weights.shape[1] - 1)).double()
    summed = inside.masked_fill_(ids >= weights.shape[1], 0).cumsum(1)
    return block[:, 0] * _BLOCK + _first_above(summed, target - before)


def draw_among(ids: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
    """The same where only *ids* [n, k], in any order, have *weights* [n, k] (float64)."""
    ids, order = ids.sort(dim=1)
    summed = weights.gather(1, order).cumsum(1)
    at = _first_above(summed, numbers[:, None] * summed[:, -1:])
    return ids.gather(1, at[:, None])[:, 0]


def _first_above(summed: Tensor, target: Tensor) -> Tensor:
    """[n]; never a place that adds nothing."""
    return (summed <= _below(target, summed[:, -1:])).sum(1).clamp_(max=summed.shape[1] - 1)


def _below(target: Tensor, total: Tensor) -> Tensor:
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))


def nucleus(sorted_weights: Tensor, total: Tensor, top_p: Tensor) -> Tensor:
    """Which of *sorted_weights* [n, k] (float64, largest first) stay: those before which less than top_p is summed.

    *total* and *top_p* are [n, 1]. 1 drops nothing, and the first always stays.
    """
    before = sorted_weights.cumsum(1) - sorted_weights
    keep = (before < top_p * total) | (top_p >= 1)
    keep[:, 0] = True
    return keep
