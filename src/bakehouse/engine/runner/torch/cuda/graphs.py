"""Steps that only decode, as CUDA graphs: one launch in the place of hundreds. Not yet run on a GPU.

A step fits where every segment is one row, sees what is before it, and has no adapter. Its rows are filled up to the
next of a few sizes, each of which is captured when it is first needed; all that changes from step to step is copied at
once into tensors that the graph reads. Sampling, masks, page copies and adapters stay outside.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bakehouse.engine.plan.step import Segment, StepPlan
from bakehouse.engine.runner.torch.cuda.capture import Replay, blocker
from bakehouse.engine.runner.torch.cuda.table import DecodeTable

_log = logging.getLogger(__name__)

#: Steps of more rows run without a graph: there the kernels' own time is more than that of their launches.
MOST_ROWS = 256
#: Page numbers that a graph has room for, at most, in all its rows together.
MOST_PAGES = 2**20


class Outputs(NamedTuple):
    """``[rows, hidden]`` and ``[rows, vocabulary]``."""

    states: Tensor
    logits: Tensor


#: Token ids and positions ``[rows]`` and the table; makes what runs them and gives the same outputs each time.
Decode = Callable[[Tensor, Tensor, DecodeTable], Callable[[], Outputs]]
Capture = Callable[[Callable[[], Outputs]], tuple[Replay, Outputs]]


@dataclass(frozen=True, slots=True)
class Limits:
    """``rows`` and ``context`` (tokens) of a step, at most; ``page_size`` in tokens."""

    rows: int
    context: int
    page_size: int


class Graphs:
    """The graphs of one runner. ``refused`` says why there are none; ``replayed`` counts steps."""

    def __init__(self, decode: Decode, capture: Capture, limits: Limits, device: torch.device) -> None:
        self._decode = decode
        self._capture = capture
        self._limits = limits
        self._device = device
        self._sizes: dict[int, Size] = {}
        self.refused: str | None = None
        self.replayed = 0

    def run(self, plan: StepPlan) -> Outputs | None:
        """Of the rows of *plan*, good until the next call; None where the step is to be run without a graph."""
        if self.refused is not None or not self._takes(plan):
            return None
        size = self._size(len(plan.tokens))
        if not size.fill(plan, self._limits.page_size) or not self._ready(size):
            return None
        assert size.replay is not None
        assert size.outputs is not None
        size.replay()
        self.replayed += 1
        rows = len(plan.tokens)
        return Outputs(size.outputs.states[:rows], size.outputs.logits[:rows])

    def _takes(self, plan: StepPlan) -> bool:
        return 0 < len(plan.tokens) <= min(self._limits.rows, MOST_ROWS) and all(map(_decodes, plan.segments))

    def _size(self, rows: int) -> Size:
        padded = padded_rows(rows)
        if padded not in self._sizes:
            self._sizes[padded] = Size(padded, self._limits, self._device)
        return self._sizes[padded]

    def _ready(self, size: Size) -> bool:
        if size.replay is None:
            run = self._decode(size.tokens, size.positions, size.table)
            self.refused = blocker(run)
            if self.refused is None:
                try:
                    size.replay, size.outputs = self._capture(run)
                except RuntimeError as failed:
                    self.refused = str(failed)
            if self.refused is not None:
                self._sizes.clear()
                _log.warning("decoding runs without CUDA graphs: %s", self.refused)
        return self.refused is None


class Size:
    """The inputs of so many *rows*, in one tensor that is filled by one copy, and what was captured over them."""

    def __init__(self, rows: int, limits: Limits, device: torch.device) -> None:
        self.rows = rows
        room = min(rows * -(-limits.context // limits.page_size), MOST_PAGES)
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(7 * rows + room, dtype=torch.int64, pin_memory=on_gpu)
        self._inputs = torch.zeros(7 * rows + room, dtype=torch.int64, device=device)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        heads = self._inputs[: 7 * rows].view(7, rows)
        self.tokens, self.positions = heads[0], heads[1]
        self.table = DecodeTable(heads[2], heads[3:], self._inputs[7 * rows :], limits.context)
        self.replay: Replay | None = None
        self.outputs: Outputs | None = None

    def fill(self, plan: StepPlan, page_size: int) -> bool:
        """Take in *plan*; False where its pages do not fit.

        Rows beyond it are one token each that reads the first page of the others and is written nowhere.
        """
        segments = sorted(plan.segments, key=_start)
        spare = [0] * (self.rows - len(segments))
        pages = array("q")
        firsts: list[int] = []
        for segment in segments:
            firsts.append(len(pages))
            pages.extend(segment.pages[: segment.history // page_size + 1])
        packed = array("q", [*plan.tokens, *spare, *plan.positions, *spare])
        packed.extend(_slots(segments, page_size))
        packed.extend([-1] * len(spare))
        packed.extend(range(self.rows))
        packed.extend([1] * self.rows)
        packed.extend([*(segment.history for segment in segments), *spare, *firsts, *spare])
        packed.extend(pages)
        if len(packed) > len(self._host):
            return False
        self._copy(torch.frombuffer(packed, dtype=torch.int64))
        return True

    def _copy(self, packed: Tensor) -> None:
        if self._copied is not None:
            self._copied.synchronize()  # the last copy may still be reading
        self._host[: len(packed)].copy_(packed)
        self._inputs[: len(packed)].copy_(self._host[: len(packed)], non_blocking=True)
        if self._copied is not None:
            self._copied.record()


def padded_rows(rows: int) -> int:
    """The size that *rows* are filled up to: powers of two up to 8, then steps of 8, from 64 on of 32."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length()
    step = 8 if rows <= 64 else 32
    return -(-rows // step) * step


def _decodes(segment: Segment) -> bool:
    return segment.count == 1 and segment.visible is None and segment.key_positions is None and segment.adapter is None


def _start(segment: Segment) -> int:
    return segment.start


def _slots(segments: Sequence[Segment], page_size: int) -> list[int]:
    return [
        segment.pages[segment.history // page_size] * page_size + segment.history % page_size for segment in segments
    ]
