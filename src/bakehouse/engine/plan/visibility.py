"""From masks by position to the slots that a row sees.

The default: a row sees the keys whose position is not above its own, among the slots that are there when it runs. Where
positions rise with the slots that is plain causal order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from bakehouse.engine.brle import Ranges


def causal(slot: int) -> Ranges:
    return ((0, slot + 1),)


def slots_at(allowed: Ranges, positions: Sequence[int] | None, rising: bool, limit: int) -> Ranges:
    """The slots below *limit* whose position lies in *allowed*.

    *positions*: of each slot, None where slot and position are the same number; *rising*: they strictly increase.
    """
    if positions is None:
        return tuple((start, min(stop, limit)) for start, stop in allowed if start < limit)
    if rising:
        found = [(bisect_left(positions, a, 0, limit), bisect_left(positions, b, 0, limit)) for a, b in allowed]
        return _joined([(a, b) for a, b in found if a < b])
    return _slots(limit, lambda slot: any(a <= positions[slot] < b for a, b in allowed))


def slots_upto(position: int, slot: int, positions: Sequence[int] | None, rising: bool, limit: int) -> Ranges:
    """The default of a row in *slot* at *position*."""
    if positions is None or rising:
        return causal(slot)
    return _slots(limit, lambda other: positions[other] <= position)


def looks_forward(slot: int, visible: Ranges) -> bool:
    """Whether it sees a slot behind its own, which must then run in the same step."""
    return visible[-1][1] > slot + 1


def _slots(limit: int, sees: Callable[[int], bool]) -> Ranges:
    found: list[tuple[int, int]] = []
    for slot in range(limit):
        if sees(slot):
            if found and found[-1][1] == slot:
                found[-1] = (found[-1][0], slot + 1)
            else:
                found.append((slot, slot + 1))
    return tuple(found)


def _joined(ranges: list[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
