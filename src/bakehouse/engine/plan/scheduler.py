"""Whose turn it is: priorities, then owners by what they were served, then within an owner by age.

Fairness is start-time fair queueing: each owner has a virtual time that its rows advance, the owner with the least goes
next, and an owner who comes back from a pause starts at the present virtual time, so that a pause earns no credit.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace

from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.work import Work

#: So many owners without work are remembered before those who have no debt are forgotten.
REMEMBERED = 1024


class Fairness:
    def __init__(self) -> None:
        self._time: dict[str, float] = {}
        self._works: dict[str, int] = defaultdict(int)
        self._now = 0.0

    def enter(self, owner: str) -> None:
        """One more pass of *owner* waits or runs."""
        if not self._works[owner]:
            self._time[owner] = max(self._time.get(owner, 0.0), self._now)
        self._works[owner] += 1

    def leave(self, owner: str) -> None:
        self._works[owner] -= 1
        if not self._works[owner]:
            del self._works[owner]
            if len(self._time) > REMEMBERED + len(self._works):
                self._time = {o: t for o, t in self._time.items() if t > self._now or o in self._works}

    def charge(self, owner: str, rows: int) -> None:
        self._time[owner] += rows

    def served(self, owners: set[str]) -> None:
        """These had rows in a step: the present is where the least served of them was."""
        if owners:
            self._now = max(self._now, min(self._time[owner] for owner in owners))

    def order(self, works: list[Work], by: Callable[[Work], tuple[int, ...]]) -> Iterator[Work]:
        """*works* in the order of their turns; what is charged meanwhile counts."""
        works.sort(key=by)
        lanes: dict[str, list[Work]] = defaultdict(list)
        for work in works:
            lanes[work.pass_.owner].append(work)
        if len(lanes) == 1:
            yield from works
            return
        heap = [(self._time[owner], number, owner, deque(lane)) for number, (owner, lane) in enumerate(lanes.items())]
        heapify(heap)
        while heap:
            _, number, owner, lane = heap[0]
            if not lane:
                heappop(heap)
                continue
            yield lane.popleft()
            heapreplace(heap, (self._time[owner], number, owner, lane))


def levels(works: list[Work], limits: PlanLimits, now: float) -> list[list[Work]]:
    """*works* by how urgent they are now, the most urgent first. Sets their claims.

    Waiting makes urgent, and whoever waits behind a pass on the same context lends it its own urgency.
    """
    by_urgency: dict[int, list[Work]] = defaultdict(list)
    for work in works:
        urgency = max(_urgency(waiting, limits, now) for waiting in work.context.queue)
        work.claim = (urgency, -work.seq)
        by_urgency[urgency].append(work)
    return [by_urgency[urgency] for urgency in sorted(by_urgency, reverse=True)]


def _urgency(work: Work, limits: PlanLimits, now: float) -> int:
    if work.submitted is None:
        work.submitted = now
    return work.pass_.priority + int((now - work.submitted) / limits.aging)


def split(works: list[Work], limits: PlanLimits) -> tuple[list[Work], list[Work]]:
    """(few rows to go, many rows to go): decodes and prefills."""
    few: list[Work] = []
    many: list[Work] = []
    for work in works:
        base = work.base if work.begun else len(work.context.tokens)
        rows = base + len(work.pass_.tokens) - work.context.computed
        (few if rows <= limits.page_size else many).append(work)
    return few, many


def by_turn(work: Work) -> tuple[int, ...]:
    """Decodes: those who waited longest since they were last served, then the oldest stream."""
    return (work.context.last_used, work.seq)


def by_age(work: Work) -> tuple[int, ...]:
    return (work.seq,)
