"""What a guest can wait for through WASI: a time, or a wait of ours. Ends with the guest, whenever that is."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence

from bakehouse.inferlets.sandbox.running import Running

#: The longest that a thread waits without looking up: a time beyond this is not a time but a mistake.
_LONGEST = 3600.0


class Pollable(ABC):
    """``due``: when it will be ready at the latest, on the monotonic clock. ``wait``: what makes it ready before."""

    due = math.inf
    wait: int | None = None

    @abstractmethod
    def ready(self, running: Running) -> bool: ...


class Timer(Pollable):
    def __init__(self, due: float) -> None:
        self.due = due

    def ready(self, running: Running) -> bool:
        return time.monotonic() >= self.due


class Waiting(Pollable):
    """For a wait of `Calls.waits`. It is None once its result was taken: ready from then on."""

    def __init__(self, wait: int) -> None:
        self.wait = wait

    def ready(self, running: Running) -> bool:
        return self.wait is None or bool(running.calls.waits.any(_packed([self.wait]), 0.0))


def poll(running: Running, pollables: Sequence[Pollable]) -> list[int]:
    """The places of those that are ready, as soon as there is one. Raises `Ended`."""
    while True:
        ready = [at for at, each in enumerate(pollables) if each.ready(running)]
        if ready:
            return ready
        left = min(each.due for each in pollables) - time.monotonic()
        waits = [each.wait for each in pollables if each.wait is not None]
        running.calls.waits.any(_packed(waits), max(0.0, min(left, _LONGEST)))


def _packed(waits: list[int]) -> str:
    return array("I", waits).tobytes().decode("latin-1")
