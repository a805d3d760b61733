"""How an instance stands, why it ends, and what it tells the one who keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bakehouse.core.task import TaskStatus
from bakehouse.launch.base import Hooks, LaunchSettings
from bakehouse.launch.calls import CallState

if TYPE_CHECKING:
    from bakehouse.launch.instance import Instance


class Stage(IntEnum):
    """``PREPARING``: no process yet. ``STARTING``: until its hello. Then ``setup``, ready, asked to stop, ended."""

    PREPARING = 0
    STARTING = 1
    SETTING_UP = 2
    READY = 3
    STOPPING = 4
    DEAD = 5


MOVES = {
    Stage.PREPARING: TaskStatus.PREPARING,
    Stage.STARTING: TaskStatus.SERVING,
    Stage.SETTING_UP: TaskStatus.SETTING_UP,
}


_LOG_BYTES_PER_SECOND = 64 * 1024
"""Of what an instance prints while no call runs, this much is handed on."""


@dataclass(frozen=True, slots=True)
class End:
    """Why an instance is being ended by us, and what that means to the call that runs."""

    reason: str
    code: str = "instance_lost"
    retry: bool = True


class Keeper(Protocol):
    """Who owns instances and hears of their changes."""

    settings: LaunchSettings
    hooks: Hooks
    store: Path

    def instance_ready(self, instance: Instance) -> None: ...
    def call_left(self, instance: Instance, state: CallState, seconds: float | None) -> None: ...
    def instance_leaving(self, instance: Instance) -> None: ...
    def instance_gone(self, instance: Instance) -> None: ...


class OperatorLog:
    """What an instance prints while no call runs: bounded, because no task pays for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[str, list[str]], None]) -> None:
        self._loop, self._tell = loop, tell
        self._since = 0.0
        self._bytes = 0

    def add(self, stream: str, lines: list[str]) -> None:
        """Hand *lines* on, or say once in a second that lines are dropped."""
        now = self._loop.time()
        if now - self._since >= 1.0:
            self._since, self._bytes = now, 0
        before, self._bytes = self._bytes, self._bytes + sum(map(len, lines))
        if self._bytes <= _LOG_BYTES_PER_SECOND:
            self._tell(stream, lines)
        elif before <= _LOG_BYTES_PER_SECOND:
            self._tell("system", ["it prints too much: lines are dropped"])
