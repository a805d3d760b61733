"""The contract of runners: a `StepPlan` in, one result per readout out.

All calls come from one thread, the engine loop's. A runner keeps no record of sequences: pages, slots and positions are
all in the plan, and two plans that describe the same tokens give the same results whatever else is in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bakehouse.engine.plan.step import Readout, ReadoutResult, StepPlan


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What planning must know of a model. ``page_bytes``: KV of one page over all layers."""

    architecture: str
    vocab_size: int
    hidden_size: int
    layers: int
    max_context: int
    page_size: int
    page_bytes: int
    dtype: str
    device: str


class Runner(ABC):
    shape: ModelShape

    @abstractmethod
    def allocate(self, pages: int) -> None:
        """Make the KV pool, *pages* pages of ``shape.page_size`` tokens. Called once, before the first step.

        Raises `OutOfPages` where the device cannot hold it, with what it would need and what there is.
        """

    @abstractmethod
    def forward(self, plan: StepPlan) -> Any:
        """Do the copies, run the rows, write their KV. The answer is for `sample` alone, and good until the next call.

        It may return before the device is done. Masks of readouts need not be there yet. Raises what the device raises;
        the KV of the plan's own slots is then undefined, that of all others is as before.
        """

    @abstractmethod
    def sample(self, forwarded: Any, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        """One result per readout, in order. Blocks until they are there. Changes nothing; repeatable."""

    @abstractmethod
    def close(self) -> None:
        """Free the device. May be repeated."""
