"""A step's attention as tensors: who writes where, which keys each row reads. Made once per step, for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from bakehouse.engine.plan.step import Segment, StepPlan

if TYPE_CHECKING:
    from bakehouse.engine.runner.torch.attention import Heads, LayerKV

#: KV bytes of one layer that are gathered for one attention call: so much stays in the processor's cache.
GROUP_BYTES = 4 * 2**20


@dataclass(slots=True)
class Keys:
    """Where the keys of one call lie: a run of slots, or pages to gather, ``sequences`` times ``length`` slots."""

    sequences: int
    length: int
    run: tuple[int, int] | None
    pages: Tensor | None


@dataclass(slots=True)
class Work:
    """One attention call: ``rows`` of the batch (a range, or row indices) over ``keys``.

    ``mask`` is added to the scores, ``[sequences, rows of each, length]``; None with ``causal`` means row j sees keys
    0..j, None without it that every row sees every key. ``blind``: some row sees no key and attends to nothing.
    """

    rows: range | Tensor
    keys: Keys
    mask: Tensor | None
    causal: bool = False
    blind: bool = False


@dataclass(slots=True)
class Reads:
    """Single rows for the native kernel: see `Native.decode`. ``all_rows``: they are all rows of the batch."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    all_rows: bool


#: Up to so many rows of a segment are run as single rows where the native kernel does them.
_FEW = 8


class OnDevice(Protocol):
    """The attention of one step as kernels of a device do it, in the place of all works and reads."""

    def write(self, layer: LayerKV, key: Tensor, value: Tensor) -> None:
        """``[rows, heads, dim]`` each, to the step's slots."""

    def attend(self, layer: LayerKV, query: Tensor, heads: Heads) -> Tensor:
        """*query* ``[rows, heads, dim]`` over what is written; the answer is ``[rows, heads, value dim]``."""


@dataclass(slots=True)
class Prompt:
    """Rows ``start .. start + count`` of one sequence for the native kernel: see `Native.prefill`."""

    start: int
    count: int
    history: int
    pages: Tensor


class Batch:
    """The attention of one step. A layer with *window* has to do ``works(window)`` and, natively, ``reads(window)``;
    where ``on_device`` is set, that does it all."""

    def __init__(
        self,
        plan: StepPlan,
        page_size: int,
        slot_bytes: int,
        dtype: torch.dtype,
        device: torch.device,
        native: bool = False,
        prefills: bool = False,
    ) -> None:
        self._plan = plan
        self.page_size = page_size
        self._group_pages = max(GROUP_BYTES // (slot_bytes * page_size), 1)
        self._dtype = dtype
        self._device = device
        self._works: dict[int | None, list[Work]] = {}
        self._reads: dict[int | None, Reads | None] = {}
        self._few = _FEW if native else 0
        self._prefills = prefills
        self._longest = max((segment.history + segment.count for segment in plan.segments), default=0)
        self._odd = any(segment.key_positions is not None for segment in plan.segments)
        self.on_device: OnDevice | None = None
        self.slots = self._slots()

    def _slots(self) -> Tensor:
        size = self.page_size
        slots: list[int] = []
        for segment in self._plan.segments:
            if segment.count == 1:
                slots.append(segment.pages[segment.history // size] * size + segment.history % size)
            else:
                slots += [
                    segment.pages[slot // size] * size + slot % size
                    for slot in range(segment.history, segment.history + segment.count)
                ]
        return torch.tensor(slots, dtype=torch.long, device=self._device)

    def _effective(self, window: int | None) -> int | None:
        """None for a window where no row is far enough from any key."""
        return None if window is not None and window >= self._longest and not self._odd else window

    def reads(self, window: int | None) -> Reads | None:
        """The rows that the native kernel does; `works` leaves them out."""
        window = self._effective(window)
        if window not in self._reads:
            self._reads[window] = self._plan_reads(window)
        return self._reads[window]

    def _native(self, segment: Segment) -> bool:
        return segment.count <= self._few and segment.visible is None and segment.key_positions is None

    def _prompt(self, segment: Segment) -> bool:
        return self._prefills and segment.visible is None and segment.key_positions is None

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The segments of many rows that the native kernel does; `works` leaves them out."""
        return [
            Prompt(segment.start, segment.count, segment.history, torch.tensor(segment.pages, dtype=torch.int32))
            for segment in self._plan.segments
            if self._prompt(segment) and not self._native(segment)
        ]

    def _plan_reads(self, window: int | None) -> Reads | None:
        rows: list[int] = []
        pages: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        for segment in self._plan.segments:
            if self._native(segment):
                rows += range(segment.start, segment.start + segment.count)
                starts += [len(pages)] * segment.count
                stops += range(segment.history + 1, segment.history + segment.count + 1)
                pages += segment.pages[: -(-stops[-1] // self.page_size)]
        if not rows:
            return None
        firsts = [0 if window is None else max(stop - window, 0) for stop in stops]
        wide = [torch.tensor(values, dtype=torch.long) for values in (rows, starts, firsts, stops)]
        held = torch.tensor(pages, dtype=torch.int32)
        return Reads((wide[0], held, wide[1], wide[2], wide[3]), len(rows) == len(self._plan.tokens))

    def works(self, window: int | None) -> list[Work]:
        window = self._effective(window)
        if window not in self._works:
            self._works[window] = self._plan_works(window)
        return self._works[window]

    def _plan_works(self, window: int | None) -> list[Work]:
        single: list[Segment] = []
        works: list[Work] = []
        for segment in self._plan.segments:
            if self._native(segment) or self._prompt(segment):
                continue
            if segment.count == 1 and segment.visible is None and segment.key_positions is None:
                single.append(segment)
            elif segment.visible is None and segment.key_positions is None:
                works.append(self._chunk(segment, window))
            else:
                works.append(self._explicit(segment, window))
        return works + self._decodes(single, window)

    def _decodes(self, segments: list[Segment], window: int | None) -> list[Work]:
        """One-row segments, grouped so that those of a group have keys of about one length and fit the cache."""
        size = self.page_size
        spans = []
        for segment in segments:
            first = 0 if window is None else max(segment.history + 1 - window, 0)
            spans.append((segment.history // size - first // size + 1, first, segment))
        spans.sort(key=lambda span: span[0])
        works = []
        at = 0
        while at < len(spans):
            stop = at + 1
            while stop < len(spans) and self._fits(spans[at][0], spans[stop][0], stop + 1 - at):
                stop += 1
            works.append(self._decode_group(spans[at:stop]))
            at = stop
        return works

    def _fits(self, least: int, most: int, count: int) -> bool:
        return most * count <= self._group_pages and most <= least * 1.25 + 2

    def _decode_group(self, spans: Sequence[tuple[int, int, Segment]]) -> Work:
        size = self.page_size
        width = spans[-1][0]
        rows: list[int] = []
        pages: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        for count, first, segment in spans:
            page = first // size
            rows.append(segment.start)
            pages += segment.pages[page : page + count]
            pages += [segment.pages[page]] * (width - count)
            starts.append(first - page * size)
            stops.append(segment.history + 1 - page * size)
        longest = max(stops)
        mask = None
        if any(starts) or min(stops) != longest:
            at = torch.arange(longest)
            seen = (at >= torch.tensor(starts)[:, None]) & (at < torch.tensor(stops)[:, None])
            mask = self._additive(seen)[:, None]
        return Work(self._rows(rows), self._keys(pages, len(spans), longest), mask)

    def _rows(self, rows: list[int]) -> range | Tensor:
        if rows == list(range(rows[0], rows[0] + len(rows))):
            return range(rows[0], rows[0] + len(rows))
        return torch.tensor(rows, dtype=torch.long, device=self._device)

    def _keys(self, pages: Sequence[int], sequences: int, length: int) -> Keys:
        """*pages* of all sequences, equally many of each, of which the first *length* slots are read."""
        size = self.page_size
        first = pages[0]
        if sequences == 1 and all(page == first + index for index, page in enumerate(pages)):
            return Keys(1, length, (first * size, first * size + length), None)
        return Keys(sequences, length, None, torch.tensor(pages, dtype=torch.long, device=self._device))

    def _chunk(self, segment: Segment, window: int | None) -> Work:
        """A run of rows of one sequence, causal."""
        size = self.page_size
        length = segment.history + segment.count
        page = 0 if window is None else max(segment.history + 1 - window, 0) // size
        keys = self._keys(segment.pages[page : -(-length // size)], 1, length - page * size)
        rows = range(segment.start, segment.start + segment.count)
        if segment.history == 0 and (window is None or window >= length):
            return Work(rows, keys, None, causal=True)
        at = torch.arange(segment.history, length)[:, None]
        key = torch.arange(page * size, length)
        seen = key <= at
        if window is not None:
            seen &= key > at - window
        return Work(rows, keys, self._additive(seen)[None])

    def _explicit(self, segment: Segment, window: int | None) -> Work:
        """Rows with masks of their own, or with positions that are not their slots."""
        length = segment.history + segment.count
        rows = range(segment.start, segment.start + segment.count)
        seen = visible_slots(segment, self._plan.positions[rows.start : rows.stop], window)
        keys = self._keys(segment.pages[: -(-length // self.page_size)], 1, length)
        return Work(rows, keys, self._additive(seen)[None], blind=not bool(seen.any(dim=1).all()))

    def _additive(self, seen: Tensor) -> Tensor:
        """Zero where *seen*, minus infinity elsewhere."""
        mask = torch.zeros(seen.shape, dtype=self._dtype)
        return mask.masked_fill_(~seen, float("-inf")).to(self._device)


def visible_slots(segment: Segment, positions: Sequence[int], window: int | None) -> Tensor:
    """Bools ``[rows, history + rows]``: what each row sees. *positions* are those of the rows."""
    length = segment.history + segment.count
    seen = _visible(segment, length)
    if window is not None:
        held = torch.arange(length) if segment.key_positions is None else torch.tensor(segment.key_positions)
        seen &= held[None, :] > torch.tensor(positions)[:, None] - window
    return seen


def _visible(segment: Segment, length: int) -> Tensor:
    if segment.visible is None:
        at = torch.arange(segment.history, length)[:, None]
        return torch.arange(length)[None, :] <= at
    edges = torch.zeros(segment.count, length + 1, dtype=torch.int32)
    for row, ranges in enumerate(segment.visible):
        for start, stop in ranges:
            if start < length and stop > start:
                edges[row, start] += 1
                edges[row, min(stop, length)] -= 1
    return edges.cumsum(dim=1)[:, :length] > 0
