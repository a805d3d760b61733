"""One step, as data: what the runner is told and what it tells back.

A step runs the tokens of many sequences as one flat batch. Row i of the batch is ``tokens[i]`` at ``positions[i]``;
a segment is the run of rows that belongs to one sequence. A **slot** is a place in a sequence's KV: slot s lies in page
``pages[s // page_size]`` at offset ``s % page_size``. Slots count tokens in the order they were run; positions are what
the model's rotary embedding and the masks see. Nearly always they are the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import EngineError
from bakehouse.engine.params import NO_PENALTIES, Penalties, Result, Sampler, TokenLogprobs


class Copy(NamedTuple):
    """Copy the first *tokens* tokens of page *source* to page *target*, in every layer, before anything else runs."""

    source: int
    target: int
    tokens: int


@dataclass(slots=True)
class Segment:
    """The rows ``start .. start + count`` of one sequence.

    ``pages`` cover at least ``history + count`` slots. Row j writes slot ``history + j`` and by default sees the slots
    up to and with its own. ``visible``, where present, gives for each row the slots that it sees instead.
    ``key_positions`` gives the position of each of the ``history + count`` slots, or None where position equals slot;
    layers with a sliding window compare positions.
    """

    start: int
    count: int
    history: int
    pages: Sequence[int]
    visible: Sequence[Ranges] | None = None
    key_positions: Sequence[int] | None = None
    adapter: int | None = None
    zo_seed: int = 0


@dataclass(slots=True)
class Readout:
    """One result wanted from one row.

    ``seed`` and ``draw`` name the random number: equal pairs give equal draws in any batch. ``mask`` is packed as
    `brle.to_bits` packs it; None allows all ids. ``prompt`` and ``generated`` are the ids that penalties look at.
    """

    row: int
    sampler: Sampler
    seed: int = 0
    draw: int = 0
    mask: bytes | None = None
    penalties: Penalties = NO_PENALTIES
    prompt: Sequence[int] = ()
    generated: Sequence[int] = ()
    logprobs: int = 0
    want_logprob: bool = False


class ReadoutResult(NamedTuple):
    """``error`` excludes the rest (``value`` is then -1): this row could not be sampled, others of the step could."""

    value: Result
    logprobs: TokenLogprobs | None = None
    error: EngineError | None = None


@dataclass(slots=True)
class StepPlan:
    """Everything the runner needs for one step."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    readouts: list[Readout] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
