"""Who is next: the waiting tasks of this server, fair between owners. Plain data, no input or output.

Owners take turns: the one with the fewest running tasks first, among equals the one served longest ago. Within an
owner, lanes take turns, and a lane is first in, first out. So an owner's thousand tasks never starve another's one,
and a lane that has no room does not hold up the owner's other lanes.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable

from bakehouse.core.executor import Capacity
from bakehouse.core.task import QueuedTask

Lane = tuple[str, str]
"""(kind, lane): what capacity is asked for."""


class Backlog:
    """Waiting tasks. ``running`` must be told of every start and end, because fairness counts them."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[Lane, deque[QueuedTask]]] = {}
        self._known: dict[str, str] = {}  # task id -> owner id
        self._counts: Counter[str] = Counter()  # of _known, by owner
        self._later: list[tuple[int, str, QueuedTask]] = []
        self._turn = 0
        self._served: dict[str, int] = {}
        self.running: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._known

    def count(self, owner_id: str) -> int:
        """How many tasks of one owner wait."""
        return self._counts[owner_id]

    def ids(self) -> set[str]:
        """Every task that waits."""
        return set(self._known)

    def add(self, task: QueuedTask, now: int, *, front: bool = False) -> None:
        """Put *task* in line (once); one with a later ``run_at`` is kept aside. ``front``: it was at the head."""
        if task.id in self._known:
            return
        self._known[task.id] = task.owner_id
        self._counts[task.owner_id] += 1
        if task.run_at is not None and task.run_at > now:
            heapq.heappush(self._later, (task.run_at, task.id, task))
        else:
            self._enqueue(task, front)

    def _enqueue(self, task: QueuedTask, front: bool = False) -> None:
        queue = self._owners.setdefault(task.owner_id, {}).setdefault((task.kind, task.lane), deque())
        if front:
            queue.appendleft(task)
        else:
            queue.append(task)

    def discard(self, task_id: str) -> None:
        """Forget a task that ended while it waited; its entry is skipped when its turn comes."""
        owner_id = self._known.pop(task_id, None)
        if owner_id is not None:
            self._counts[owner_id] -= 1
            if not self._counts[owner_id]:
                del self._counts[owner_id]

    def due(self, now: int) -> int | None:
        """Move tasks whose time has come into line; when the next one is due, or None."""
        while self._later and self._later[0][0] <= now:
            task = heapq.heappop(self._later)[2]
            if task.id in self._known:
                self._enqueue(task)
        return self._later[0][0] if self._later else None

    def idle(self) -> bool:
        """Nothing is in line (tasks for later do not count)."""
        return not self._owners

    def take(self, capacity: Callable[[Lane], Capacity], limit: int) -> list[QueuedTask]:
        """Remove and return the tasks to start now, at most *limit*.

        Ready places go first, to everyone in turn. Places behind a busy instance (prefetch) are given only when no
        lane of the same kind is starved: else that instance would never become idle for the others.
        """
        taken: list[QueuedTask] = []
        used: Counter[Lane] = Counter()
        room = {lane: capacity(lane) for lanes in self._owners.values() for lane in lanes}
        self._rounds(taken, used, {lane: c.ready for lane, c in room.items()}, limit)
        waiting = [(lane[0], room[lane]) for lanes in self._owners.values() for lane in lanes]
        starved = {kind for kind, c in waiting if c.ready + c.prefetch <= 0 and not c.bound}
        behind = {lane: c.ready + (0 if lane[0] in starved else c.prefetch) for lane, c in room.items()}
        self._rounds(taken, used, behind, limit)
        return taken

    def _rounds(self, taken: list[QueuedTask], used: Counter[Lane], room: dict[Lane, int], limit: int) -> None:
        """Owners in turn, one task each, until nothing fits."""
        progress = True
        while progress and len(taken) < limit:
            progress = False
            for owner_id in sorted(self._owners, key=self._rank):
                if len(taken) >= limit:
                    break
                task = self._next_of(owner_id, used, room)
                if task is not None:
                    taken.append(task)
                    progress = True

    def _rank(self, owner_id: str) -> tuple[int, int]:
        return (self.running[owner_id], self._served.get(owner_id, 0))

    def _next_of(self, owner_id: str, used: Counter[Lane], room: dict[Lane, int]) -> QueuedTask | None:
        lanes = self._owners[owner_id]
        for lane in list(lanes):
            if not self._alive(lanes, lane) or used[lane] >= room.get(lane, 0):
                continue
            task = lanes[lane].popleft()
            if not lanes[lane]:
                del lanes[lane]
            if lane in lanes:  # the lane goes to the end of its owner's line
                lanes[lane] = lanes.pop(lane)
            used[lane] += 1
            self._turn += 1
            self._served[owner_id] = self._turn
            self.discard(task.id)
            self.running[owner_id] += 1
            break
        else:
            task = None
        if not lanes:
            del self._owners[owner_id]
        return task

    def _alive(self, lanes: dict[Lane, deque[QueuedTask]], lane: Lane) -> bool:
        """Drop forgotten tasks from a lane's head; whether anything is left."""
        queue = lanes[lane]
        while queue and queue[0].id not in self._known:
            queue.popleft()
        if not queue:
            del lanes[lane]
        return bool(queue)

    def ended(self, owner_id: str) -> None:
        """A task of *owner_id* that ``take`` or ``started`` counted is no longer running."""
        self.running[owner_id] -= 1
        if self.running[owner_id] <= 0:
            del self.running[owner_id]
            if owner_id not in self._owners:
                self._served.pop(owner_id, None)

    def started(self, owner_id: str) -> None:
        """A task was started without waiting here."""
        self.running[owner_id] += 1
