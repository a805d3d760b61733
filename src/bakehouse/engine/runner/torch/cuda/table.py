"""A step as the kernels read it: tensors of segments, pages and tiles. Made once per step, for all layers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bakehouse.engine.plan.step import Segment, StepPlan
from bakehouse.engine.runner.torch.batch import visible_slots

#: A segment of up to so many rows has its keys cut into parts: its rows alone would not keep a device busy.
FEW = 8


@dataclass(slots=True)
class Tiles:
    """int64 ``[tiles]`` each: the segment, and the first of its rows that the tile does.

    ``rows``: row numbers of the batch that these tiles do. ``longest``: of their keys, in tokens, at most.
    """

    segments: Tensor
    firsts: Tensor
    rows: Tensor
    longest: int


@dataclass(slots=True)
class Mask:
    """``seen``: int8, flat. ``starts``: int64, where a segment's ``count * (history + count)`` begin; -1: causal."""

    seen: Tensor
    starts: Tensor


class Table(Protocol):
    """One step. ``slots`` int64 ``[rows]`` (below zero: not written); ``pages`` int64, of all segments, flat;
    ``segments`` int64 ``[4, n]``: first row, rows, history, where its pages begin."""

    slots: Tensor
    pages: Tensor
    segments: Tensor

    def few(self, tile: int) -> Tiles | None:
        """Of the segments with few rows, *tile* rows in one tile. None where there are none."""

    def many(self, tile: int) -> Tiles | None:
        """The same of the others."""

    def mask(self, window: int | None) -> Mask | None:
        """None where all segments are causal, by slot."""


class PlanTable:
    """The table of any plan."""

    def __init__(self, plan: StepPlan, slots: Tensor) -> None:
        self.slots = slots
        self._plan = plan
        self._device = slots.device
        parts = plan.segments
        starts, held = [], array("q")
        for segment in parts:
            starts.append(len(held))
            held.extend(segment.pages)
        columns = [[part.start for part in parts], [part.count for part in parts], [part.history for part in parts]]
        packed = self._tensor([*columns[0], *columns[1], *columns[2], *starts, *held])
        self.segments = packed[: 4 * len(parts)].view(4, len(parts))
        self.pages = packed[4 * len(parts) :]
        self._explicit = [
            index for index, part in enumerate(parts) if part.visible is not None or part.key_positions is not None
        ]
        self._masks: dict[int | None, Mask] = {}
        self._tiles: dict[tuple[int, bool], Tiles | None] = {}

    def few(self, tile: int) -> Tiles | None:
        return self._kept(tile, True)

    def many(self, tile: int) -> Tiles | None:
        return self._kept(tile, False)

    def mask(self, window: int | None) -> Mask | None:
        if not self._explicit:
            return None
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _tensor(self, values: Sequence[int]) -> Tensor:
        if not values:
            return torch.zeros(0, dtype=torch.int64, device=self._device)
        return torch.frombuffer(array("q", values), dtype=torch.int64).to(self._device)

    def _kept(self, tile: int, few: bool) -> Tiles | None:
        key = (tile, few)
        if key not in self._tiles:
            self._tiles[key] = self._make_tiles(tile, few)
        return self._tiles[key]

    def _make_tiles(self, tile: int, few: bool) -> Tiles | None:
        mine = [(index, part) for index, part in enumerate(self._plan.segments) if (part.count <= FEW) is few]
        if not mine:
            return None
        segments: list[int] = []
        firsts: list[int] = []
        rows: list[int] = []
        for index, part in mine:
            here = range(0, part.count, tile)
            segments += [index] * len(here)
            firsts += here
            rows += range(part.start, part.start + part.count)
        packed = self._tensor([*segments, *firsts, *rows])
        count = len(segments)
        longest = max(part.history + part.count for _, part in mine)
        return Tiles(packed[:count], packed[count : 2 * count], packed[2 * count :], longest)

    def _make_mask(self, window: int | None) -> Mask:
        starts = [-1] * len(self._plan.segments)
        seen: list[Tensor] = []
        at = 0
        for index in self._explicit:
            rows = self._seen(self._plan.segments[index], window).to(torch.int8).flatten()
            starts[index] = at
            at += rows.numel()
            seen.append(rows)
        return Mask(torch.cat(seen).to(self._device), self._tensor(starts))

    def _seen(self, segment: Segment, window: int | None) -> Tensor:
        positions = self._plan.positions[segment.start : segment.start + segment.count]
        return visible_slots(segment, positions, window)


class DecodeTable:
    """The table of *rows* segments of one row each, over tensors that stay where they are: what a graph reads.

    The last three rows of ``segments``' are to be filled before each replay, as are ``slots`` and ``pages``.
    """

    def __init__(self, slots: Tensor, segments: Tensor, pages: Tensor, longest: int) -> None:
        self.slots = slots
        self.segments = segments
        self.pages = pages
        rows = torch.arange(len(slots), device=slots.device)
        self._tiles = Tiles(rows, torch.zeros_like(rows), rows, longest)

    def few(self, tile: int) -> Tiles | None:
        return self._tiles

    def many(self, tile: int) -> Tiles | None:
        return None

    def mask(self, window: int | None) -> Mask | None:
        return None
