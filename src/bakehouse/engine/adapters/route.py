"""From a step's segments to what each linear layer adds: rows by adapter, one low-rank product per group of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bakehouse.engine.adapters.peft import Delta
from bakehouse.engine.plan.step import Segment


class Part(Protocol):
    """Columns ``start .. stop`` of a linear's output are what the model's own module ``name`` gives."""

    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


class Linear(Protocol):
    """What an adapter needs of a linear layer. ``adapter`` is called with the flat input [rows, in] and the flat output
    [rows, out], where row i is row i of the step's batch, and adds to the output in place."""

    in_features: int
    adapter: Callable[[Tensor, Tensor], None] | None

    @property
    def parts(self) -> Sequence[Part]: ...


#: By slot and seed: the runs of rows (start, stop) that are alike.
Groups = dict[tuple[int, int], list[tuple[int, int]]]


def group_rows(segments: Sequence[Segment]) -> Groups:
    """The rows of each adapter and seed, neighbours joined. Empty when no segment has an adapter."""
    groups: Groups = {}
    for segment in segments:
        if segment.adapter is None:
            continue
        runs = groups.setdefault((segment.adapter, segment.zo_seed), [])
        start, stop = segment.start, segment.start + segment.count
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return groups


@dataclass(slots=True)
class Rows:
    """Rows of the batch: one run of them as a slice, or several by ``index``."""

    start: int
    stop: int
    index: Tensor | None = None

    @classmethod
    def of(cls, runs: Sequence[tuple[int, int]], device: torch.device) -> Rows:
        if len(runs) == 1:
            return cls(*runs[0])
        numbers = [row for start, stop in runs for row in range(start, stop)]
        return cls(numbers[0], numbers[-1] + 1, torch.tensor(numbers, dtype=torch.int64, device=device))


class Up(NamedTuple):
    """Columns ``start .. stop`` of the output grow by ``scale * h[:, low:high] @ weight``."""

    start: int
    stop: int
    low: int
    high: int
    weight: Tensor
    scale: float


@dataclass(slots=True)
class Product:
    """All deltas of one adapter on one linear, the downward halves joined: [in, sum of ranks]."""

    down: Tensor
    ups: list[Up]

    @classmethod
    def of(cls, parts: Sequence[Part], deltas: dict[str, Delta]) -> Product | None:
        """None where no part has a delta. The deltas become views of its weights, so that these are held once."""
        mine = [(part, deltas[part.name]) for part in parts if part.name in deltas]
        if not mine:
            return None
        down = torch.cat([delta.down for _, delta in mine], 1)
        ups, low = [], 0
        for part, delta in mine:
            high = low + delta.rank
            delta.down, delta.up = down[:, low:high], delta.up.contiguous()
            ups.append(Up(part.start, part.stop, low, high, delta.up, delta.scale))
            low = high
        return cls(down, ups)

    def bytes(self) -> int:
        tensors = [self.down, *(up.weight for up in self.ups)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def add(self, h: Tensor, y: Tensor) -> None:
        for up in self.ups:
            y[:, up.start : up.stop].addmm_(h[:, up.low : up.high], up.weight, alpha=up.scale)


class Adding(Protocol):
    """Adds to the output of some rows, given their input."""

    @property
    def rows(self) -> Rows: ...

    def add(self, x: Tensor, y: Tensor) -> None: ...


class Work(NamedTuple):
    """The rows of one adapter, all alike."""

    rows: Rows
    product: Product

    def add(self, x: Tensor, y: Tensor) -> None:
        self.product.add(x @ self.product.down, y)


class NoisyWork(NamedTuple):
    """The rows of one candidate. Mean and noise are two products, as their sum would be rounded to the mean's precision
    and the noise is small. ``noise`` makes it when the layer is there, so that not all layers' noise is held at once.
    """

    rows: Rows
    mean: Product
    noise: Callable[[], Product]

    def add(self, x: Tensor, y: Tensor) -> None:
        noise = self.noise()
        h = (x @ self.mean.down).addmm_(x, noise.down)
        self.mean.add(h, y)
        noise.add(h, y)


@dataclass(slots=True)
class Site:
    """One linear layer: what it adds in this step. It is the linear's ``adapter`` while there is any."""

    linear: Linear
    work: list[Adding] = field(default_factory=list)
    rows: int = 0

    def __call__(self, x: Tensor, y: Tensor) -> None:
        if x.shape[0] < self.rows:
            raise RuntimeError(f"{self.linear.parts[0].name} was given {x.shape[0]} rows of a step of {self.rows}")
        for work in self.work:
            rows = work.rows
            if rows.index is None:
                work.add(x[rows.start : rows.stop], y[rows.start : rows.stop])
            else:
                some = y.index_select(0, rows.index)
                work.add(x.index_select(0, rows.index), some)
                y.index_copy_(0, rows.index, some)

    def open(self, work: Adding, rows: int) -> None:
        """Add *work* to a step of so many *rows*."""
        self.work.append(work)
        self.rows = rows
        self.linear.adapter = self

    def close(self) -> None:
        self.work.clear()
        self.linear.adapter = None
