"""The contract of adapter stores: weights by slot, on the device of the model they belong to.

Names, owners and locks are not its business (`adapters.table`). A slot's **generation** rises with each change of its
weights, so that pages computed with the old ones are not taken for the new ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bakehouse.engine.plan.step import StepPlan


@dataclass(frozen=True, slots=True)
class ZoParams:
    """Of `protocol zo`: rank, scaling alpha, candidates per generation, share of them that count, first deviation."""

    rank: int
    alpha: float
    population: int
    mu_fraction: float
    sigma: float


#: What is left to be done of a change that was prepared: quick, on the loop's thread, between steps.
Change = Callable[[], None]


class AdapterStore(ABC):
    """Called from the engine loop's thread, between steps; `save` and the ``prepare_`` calls from any thread, also
    while a step runs. Errors: `BadRequest`, `NotFound`, `LimitExceeded`.
    """

    capacity: int

    @abstractmethod
    def create(self) -> int:
        """A free slot, with weights that change nothing. `LimitExceeded` when all are taken."""

    @abstractmethod
    def clone(self, slot: int) -> int:
        """A new slot with a copy of the weights and of the state of their optimiser."""

    @abstractmethod
    def remove(self, slot: int) -> None:
        """Free the slot. No pass may name it any more."""

    @abstractmethod
    def generation(self, slot: int) -> int:
        """Which weights these are: never the same number for different ones, also not after the slot was reused."""

    @abstractmethod
    def load(self, slot: int, path: Path) -> None:
        """Weights from a PEFT folder or from `save`. One that does not fit the model is refused by tensor name."""

    def prepare_load(self, slot: int, path: Path) -> Change:
        """The slow part of `load`, which changes nothing yet. By default there is none."""
        return lambda: self.load(slot, path)

    @abstractmethod
    def save(self, slot: int, path: Path) -> None:
        """A PEFT folder at *path*, with the optimiser's state where there is one. Written whole or not at all."""

    @abstractmethod
    def has_zo(self, slot: int) -> bool:
        """Whether the slot has a zo optimiser, so that a seed means something."""

    @abstractmethod
    def initialize_zo(self, slot: int, params: ZoParams) -> None:
        """Fresh weights and a fresh optimiser."""

    @abstractmethod
    def update_zo(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
        """One generation: exactly ``population`` scores, higher is better, and their seeds."""

    def prepare_update(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> Change:
        """The slow part of `update_zo`, which changes nothing yet; the rest does it again where the weights changed
        meanwhile. By default there is none."""
        return lambda: self.update_zo(slot, scores, seeds, max_sigma)

    @abstractmethod
    def begin(self, plan: StepPlan) -> None:
        """Route the rows of *plan* to their segments' adapters until the next `begin`; free when none has one."""
