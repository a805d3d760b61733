"""The executor of inferlets: a task is one instance of a program at the node."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from bakehouse.core.app import INFERLET
from bakehouse.core.executor import Call, Capacity, Returned, Sink
from bakehouse.llm.base import Hooks, InferletSettings, Node
from bakehouse.llm.calls import RunningCall

log = logging.getLogger(__name__)

REFUSED_SECONDS = 0.5
"""So long no call of an owner is taken after the node refused one; its instances of other origin may end meanwhile."""
HAND_BACK_SECONDS = 5.0
"""So long an instance that is to end may take to say so, before its task is handed back without that."""


class InferletExecutor:
    """`core.executor.Executor` for kind ``inferlet``. Nothing is warm: what bounds it is the node's admission."""

    def __init__(self, node: Node, hooks: Hooks, settings: InferletSettings | None = None) -> None:
        self.node, self.hooks, self.settings = node, hooks, settings or InferletSettings()
        self.calls: dict[str, RunningCall] = {}
        self._owners: Counter[str] = Counter()
        self._refused: dict[str, float] = {}
        self._wakes: list[Callable[[], None]] = []
        self._ended = asyncio.Event()
        self._stopping = False
        node.on_change(self._wake)

    # ---- the contract --------------------------------------------------------------------------------------

    def capacity(self, lane: str) -> Capacity:
        """See `Executor.capacity`. A node that stays down takes calls too: each then fails with the reason."""
        owner = owner_of(lane)
        if self._stopping or not (self.node.up or self.node.down) or self._is_refused(owner):
            return Capacity(0)
        free = min(self.settings.most - len(self.calls), self.settings.per_owner - self._owners[owner])
        return Capacity(max(0, free))

    def on_capacity(self, wake: Callable[[], None]) -> None:
        """See `Executor.on_capacity`."""
        self._wakes.append(wake)

    def start(self, call: Call, sink: Sink) -> None:
        """See `Executor.start`. ``call.version`` must be set."""
        if self._stopping:
            sink(Returned("the server is stopping"))
            return
        running = RunningCall(self, call, sink)
        self.calls[call.task.id] = running
        self._owners[call.task.owner_id] += 1
        running.begin(self._over)

    def send(self, task_id: str, item: dict[str, Any]) -> bool:
        """See `Executor.send`."""
        running = self.calls.get(task_id)
        return running is not None and running.take(item)

    def cancel(self, task_id: str, *, grace: float | None = None, reason: str = "cancelled") -> None:
        """See `Executor.cancel`. At once, whatever the grace: a sandbox holds nothing that time would save."""
        del grace
        running = self.calls.get(task_id)
        if running is not None:
            running.cancel(reason)

    def end_session(self, session_id: str) -> None:
        """Inferlets belong to no session."""
        del session_id

    async def start_up(self) -> None:
        """See `Executor.start_up`. Nothing is left of an earlier server: its node died with it."""

    async def shut_down(self, grace: float) -> None:
        """See `Executor.shut_down`."""
        self._stopping = True
        await self._until_none(grace)
        for running in list(self.calls.values()):
            running.give_back()
        await self._until_none(HAND_BACK_SECONDS)
        for running in list(self.calls.values()):
            running.abandon()
        await self._until_none(None)

    async def _until_none(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self.calls:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return

    # ---- what calls tell -----------------------------------------------------------------------------------

    def _over(self, running: RunningCall) -> None:
        owner = running.task.owner_id
        del self.calls[running.task.id]
        self._owners[owner] -= 1
        if not self._owners[owner]:
            del self._owners[owner]
        if running.refused:
            loop = asyncio.get_running_loop()
            self._refused[owner] = loop.time() + REFUSED_SECONDS
            loop.call_later(REFUSED_SECONDS, self._wake)
        self._ended.set()
        self._wake()

    def _is_refused(self, owner: str) -> bool:
        until = self._refused.get(owner)
        if until is None:
            return False
        if until <= asyncio.get_running_loop().time():
            del self._refused[owner]
            return False
        return True

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


def owner_of(lane: str) -> str:
    """The owner of a lane: nothing but who runs inferlets bounds how many run."""
    return lane.removeprefix(f"{INFERLET}/")
