"""From masks by position to the slots that a row sees.

The default: a row sees the keys whose position is not above its own, among the slots that are there when it runs. Where
positions rise with the slots that is plain causal order. Where they do not, a sequence is looked at as **rises**:
maximal stretches of slots whose positions strictly increase, each of which can be searched by bisection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from bakehouse.engine.brle import Ranges


def causal(slot: int) -> Ranges:
    return ((0, slot + 1),)


def rises_of(positions: Sequence[int]) -> Ranges:
    """The rises of a sequence of one position or more."""
    cuts = [slot for slot, (one, next_) in enumerate(pairwise(positions), 1) if next_ <= one]
    return tuple(pairwise([0, *cuts, len(positions)]))


def slots_at(allowed: Ranges, positions: Sequence[int] | None, rises: Ranges, limit: int) -> Ranges:
    """The slots below *limit* whose position lies in *allowed*.

    *positions*: of each slot, None where slot and position are the same number; *rises* are theirs.
    """
    if positions is None:
        return tuple((start, min(stop, limit)) for start, stop in allowed if start < limit)
    found: list[tuple[int, int]] = []
    for start, stop in rises:
        if start >= limit:
            break
        for low, high in allowed:
            first = bisect_left(positions, low, start, min(stop, limit))
            behind = bisect_left(positions, high, first, min(stop, limit))
            if first < behind:
                _append(found, first, behind)
    return tuple(found)


def slots_upto(position: int, positions: Sequence[int], rises: Ranges, limit: int) -> Ranges:
    """The slots below *limit* whose position is at most *position*."""
    return slots_at(((0, position + 1),), positions, rises, limit)


def looks_forward(slot: int, visible: Ranges) -> bool:
    """Whether it sees a slot behind its own, which must then run in the same step."""
    return visible[-1][1] > slot + 1


def _append(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], stop)
    else:
        ranges.append((start, stop))
