"""Steps by hand: sequences that keep their own pages, without a planner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bakehouse.engine.brle import Ranges
from bakehouse.engine.params import GREEDY, Sampler, SamplerKind
from bakehouse.engine.plan.step import Readout, Segment, StepPlan

EMBED = Sampler(kind=SamplerKind.EMBEDDING)


@dataclass
class Sequence_:
    """One sequence: its pages and how many slots of them are filled."""

    pages: list[int]
    filled: int = 0


@dataclass
class Steps:
    """Hands out pages in an order of its own, so that they are not consecutive unless asked for."""

    pages: int
    page_size: int = 16
    stride: int = 7
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = [(index * self.stride) % self.pages for index in range(self.pages)]
        assert len(set(self._free)) == self.pages, "stride and pages share a factor"

    def sequence(self, tokens: int) -> Sequence_:
        count = -(-tokens // self.page_size)
        taken, self._free = self._free[:count], self._free[count:]
        assert len(taken) == count, "the helper's pool is too small"
        return Sequence_(taken)


@dataclass
class Rows:
    """What one sequence runs in a step, and which of its rows are read (all by default)."""

    sequence: Sequence_
    tokens: Sequence[int]
    positions: Sequence[int] | None = None
    visible: Sequence[Ranges] | None = None
    key_positions: Sequence[int] | None = None
    read: Iterable[int] | None = None
    adapter: int | None = None


def step(rows: Sequence[Rows], sampler: Sampler = GREEDY) -> StepPlan:
    """The plan that runs *rows*; the sequences are filled as if it had run."""
    plan = StepPlan()
    for part in rows:
        start, count, history = len(plan.tokens), len(part.tokens), part.sequence.filled
        plan.tokens += list(part.tokens)
        plan.positions += list(part.positions or range(history, history + count))
        plan.segments.append(
            Segment(
                start,
                count,
                history,
                part.sequence.pages,
                visible=part.visible,
                key_positions=part.key_positions,
                adapter=part.adapter,
            )
        )
        for row in range(count) if part.read is None else part.read:
            plan.readouts.append(Readout(start + row % count, sampler))
        part.sequence.filled += count
    return plan
