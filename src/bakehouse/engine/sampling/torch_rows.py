"""Operations on rows of logits [n, vocabulary], all rows at once, none of which depends on its neighbours.

A row is looked at in blocks, so that few passes are made over it and sums stay exact: ranks come from the best blocks,
draws from the sums of blocks and then from one block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Ids per block when ranking, and when summing.
_RANK_BLOCK = 64
_SUM_BLOCK = 512
_LAST = torch.iinfo(torch.int64).min


def order_keys(values: Tensor, ids: Tensor) -> Tensor:
    """int64 keys that rise with float32 *values* and, among equal ones, fall with *ids*; no two in a row are equal."""
    bits = (values + 0.0).view(torch.int32)  # adding makes one zero of both
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (rising.to(torch.int64) << 32) | (0xFFFFFFFF - ids)


def best_ids(logits: Tensor, count: int) -> Tensor:
    """The *count* most likely ids of each row, best first, equal ones by id: [n, min(count, vocabulary)].

    The best *count* ids lie in the *count* blocks whose own best are best, so only these are ranked.
    """
    size = logits.shape[1]
    count = min(count, size)
    if count * _RANK_BLOCK * 2 > size:
        return _best_of(logits, torch.arange(size, device=logits.device).expand_as(logits), count)
    blocks = _by_block(logits, _RANK_BLOCK, torch.amax)
    numbers = torch.arange(blocks.shape[1], device=logits.device).expand_as(blocks)
    inside = torch.arange(_RANK_BLOCK, device=logits.device)
    ids = (_best_of(blocks, numbers, count)[:, :, None] * _RANK_BLOCK + inside).flatten(1)
    return _best_of(logits.gather(1, ids.clamp(max=size - 1)), ids, count, size)


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
    return _by_block(weights, _SUM_BLOCK, torch.sum).double().sum(1, keepdim=True)


def relative(logits: Tensor, best: Tensor, temperature: Tensor) -> Tensor:
    """Probabilities relative to the largest; *best* and *temperature* are [n, 1]. A tensor of its own."""
    return (logits - best).div_(temperature).exp_()


def draw(weights: Tensor, numbers: Tensor) -> Tensor:
    """By row the first id at which summed *weights* exceed *numbers* [n] (float64, in [0, 1)) times their total."""
    sums = _by_block(weights, _SUM_BLOCK, torch.sum).double().cumsum(1)
    target = _below(numbers[:, None] * sums[:, -1:], sums[:, -1:])
    block = (sums <= target).sum(1, keepdim=True).clamp_(max=sums.shape[1] - 1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums), 1).gather(1, block)
    ids = block * _SUM_BLOCK + torch.arange(_SUM_BLOCK, device=weights.device)
    inside = weights.gather(1, ids.clamp(max=weights.shape[1] - 1)).double()
    summed = inside.masked_fill_(ids >= weights.shape[1], 0).cumsum(1)
    return block[:, 0] * _SUM_BLOCK + _first_above(summed, target - before)


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
