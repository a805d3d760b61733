"""What the loop counts: steps, tokens, and where the time goes. Standard library only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

#: What a step consists of, in order. ``masks`` is the time waited for masks after the model was done.
PHASES = ("plan", "forward", "masks", "sample", "commit", "publish")


class Times:
    """Seconds by phase, written by the loop's thread alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def add(self, phase: str, since: float) -> float:
        """Count the time since *since* to *phase*; the answer is now, for the next phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - since
        return now


@dataclass
class Counters:
    """Of one model, since its start."""

    steps: int = 0
    failed_steps: int = 0
    stalls: int = 0
    rows: int = 0
    readouts: int = 0
    sequences: int = 0
    times: Times = field(default_factory=Times)

    def stepped(self, rows: int, sequences: int, readouts: int) -> None:
        self.steps += 1
        self.rows += rows
        self.sequences += sequences
        self.readouts += readouts

    def read(self) -> dict[str, float]:
        """All of it by name; times as ``seconds_PHASE``. ``rows`` are tokens run, ``sequences`` segments."""
        counts = {name: float(value) for name, value in vars(self).items() if name != "times"}
        return counts | {f"seconds_{phase}": seconds for phase, seconds in self.times.seconds.items()}
