"""What an instance and all that it spawned, and that those spawned, use up together."""

from __future__ import annotations

import threading


class Family:
    """The account of one tree of instances. Who ends leaves what it used up on it. Thread-safe.

    Each member holds it against its own limits, which are the same for all of them.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._cpu, self._output = 0.0, 0

    def compute(self, seconds: float) -> float:
        """Charge *seconds* of processor time; all that the family has had."""
        with self._guard:
            self._cpu += seconds
            return self._cpu

    def print(self, size: int, most: int) -> int:
        """Charge *size* bytes of output, as far as they stay within *most* in all; how many that is."""
        with self._guard:
            allowed = max(0, min(size, most - self._output))
            self._output += allowed
            return allowed
