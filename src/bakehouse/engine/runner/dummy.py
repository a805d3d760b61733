"""A model without weights: deterministic by seed, and a function of everything that a real model looks at.

It has two layers of hashes. A slot's first key is a hash of its token, position and adapter; its second key hashes the
first with the sum of the first keys that the row sees; a row's state hashes its second key with the sum of the second
keys that it sees. Keys live in pages as KV does, so a wrong page, offset, copy, mask, position or adapter changes what
is said. What is surely wrong in a plan (a slot read before it was written, one written twice) is an error of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bakehouse.engine.adapters.dummy import DummyAdapters
from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import OutOfPages, StepFailed
from bakehouse.engine.params import SamplerKind
from bakehouse.engine.plan.step import Copy, Readout, ReadoutResult, Segment, StepPlan
from bakehouse.engine.runner import dummy_text as text
from bakehouse.engine.runner.base import ModelShape, Runner
from bakehouse.engine.sampling.reference import ReferenceSampler
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.tokenizer.bytes import IM_END, IM_START, VOCAB_SIZE

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float32]

HIDDEN_SIZE = 64
MAX_CONTEXT = 32768
_WORD = 0xFFFFFFFFFFFFFFFF
#: How far noise lifts one id over another of equal prior.
_NOISE = 4.0
_NO_TOKEN = -1

#: Two keys, a token and a position per slot.
_SLOT_BYTES = 2 * 8 + 4 + 4


def create(spec: ModelSpec) -> DummyRunner:
    return DummyRunner(spec)


@dataclass(slots=True)
class _Forwarded:
    """By row of the step: its state, the token it ran, how far it is into its turn, what its adapter adds."""

    states: Hashes
    tokens: Ints
    ages: Ints
    shifts: dict[int, Reals]


class DummyRunner(Runner):
    """See `Runner`. ``adapters`` shifts the logits of single ids."""

    def __init__(self, spec: ModelSpec) -> None:
        self.shape = ModelShape(
            architecture="dummy",
            vocab_size=VOCAB_SIZE,
            hidden_size=HIDDEN_SIZE,
            layers=2,
            max_context=spec.max_context or MAX_CONTEXT,
            page_size=spec.page_size,
            page_bytes=spec.page_size * _SLOT_BYTES,
            dtype="fp32",
            device="cpu",
        )
        self.adapters = DummyAdapters(spec.max_adapters, VOCAB_SIZE)
        self._seed = spec.seed & _WORD
        self._sampler = ReferenceSampler()
        self._classes, self._prior = text.classes(), text.prior()
        self._id_salts = _mix(np.arange(1, VOCAB_SIZE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        self._hidden_salts = _mix(np.arange(1, HIDDEN_SIZE + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))
        self._keys: Hashes = np.zeros((2, 0, spec.page_size), np.uint64)
        self._tokens: npt.NDArray[np.int32] = np.zeros((0, spec.page_size), np.int32)
        self._positions: npt.NDArray[np.int32] = np.zeros((0, spec.page_size), np.int32)

    def allocate(self, pages: int) -> None:
        size = self.shape.page_size
        try:
            self._keys = np.zeros((2, pages, size), np.uint64)
            self._tokens = np.full((pages, size), _NO_TOKEN, np.int32)
            self._positions = np.zeros((pages, size), np.int32)
        except MemoryError as error:
            raise OutOfPages(f"{pages} pages need {pages * self.shape.page_bytes} bytes: {error}") from error

    def close(self) -> None:
        self.allocate(0)

    def forward(self, plan: StepPlan) -> _Forwarded:
        self.adapters.begin(plan)
        self._copy(plan.copies)
        rows = len(plan.tokens)
        tokens, positions = np.array(plan.tokens, np.int64), np.array(plan.positions, np.int64)
        forwarded = _Forwarded(np.zeros(rows, np.uint64), tokens, np.zeros(rows, np.int64), {})
        _refuse_unless(bool(((tokens >= 0) & (tokens < VOCAB_SIZE)).all()), "a token is not in the vocabulary")
        written: list[Ints] = []
        for segment in plan.segments:
            here = slice(segment.start, segment.start + segment.count)
            written.append(self._run(segment, tokens[here], positions[here], forwarded))
        if len(written) > 1:
            slots = np.concatenate(written)
            _refuse_unless(np.unique(slots).size == slots.size, "two rows write one slot")
        return forwarded

    def sample(self, forwarded: Any, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        embeddings = [readout.sampler.kind is SamplerKind.EMBEDDING for readout in readouts]
        rows = [readout.row for readout, embedded in zip(readouts, embeddings, strict=True) if not embedded]
        hidden = self._hidden(forwarded.states[[r.row for r in readouts]]) if any(embeddings) else None
        return self._sampler.sample(self._logits(forwarded, rows), hidden, readouts)

    def _copy(self, copies: Sequence[Copy]) -> None:
        for source, target, count in copies:
            for store in (*self._keys, self._tokens, self._positions):
                store[target, :count] = store[source, :count]

    def _run(self, segment: Segment, tokens: Ints, positions: Ints, forwarded: _Forwarded) -> Ints:
        """Write the segment's keys, and its rows' part of *forwarded*. The flat slots of the pool that it wrote."""
        history, total, size = segment.history, segment.history + segment.count, self.shape.page_size
        pages = self._pages(segment, total)
        own = np.arange(history, total)
        where = pages[own // size], own % size
        self._tokens[where], self._positions[where] = tokens, positions
        self._check_slots(segment, pages, total)
        salt = self._salt(segment, forwarded)
        first = _mix(
            tokens.astype(np.uint64) * np.uint64(0x9FB21C651E98DF25) + _mix(positions.astype(np.uint64) + salt)
        )
        self._keys[0][where] = first
        second = _mix(first + _seen(self._keys[0][pages].reshape(-1)[:total], segment))
        self._keys[1][where] = second
        here = slice(segment.start, segment.start + segment.count)
        forwarded.states[here] = _mix(second + _seen(self._keys[1][pages].reshape(-1)[:total], segment))
        forwarded.ages[here] = (positions - self._turn_starts(segment, pages, total)) % text.PERIOD
        return np.asarray(where[0] * size + where[1])

    def _pages(self, segment: Segment, total: int) -> Ints:
        pages = np.array(segment.pages[: -(-total // self.shape.page_size)], np.int64)
        _refuse_unless(pages.size * self.shape.page_size >= total, "a segment has fewer pages than tokens")
        inside = bool(((pages >= 0) & (pages < len(self._tokens))).all())
        _refuse_unless(inside, "a page is not in the pool")
        return pages

    def _check_slots(self, segment: Segment, pages: Ints, total: int) -> None:
        tokens = self._tokens[pages].reshape(-1)[:total]
        _refuse_unless(tokens.min(initial=0) > _NO_TOKEN, "a slot is read before it was written")
        stored = self._positions[pages].reshape(-1)[:total]
        told = np.arange(total) if segment.key_positions is None else np.array(segment.key_positions[:total], np.int64)
        _refuse_unless(np.array_equal(stored, told), "a slot holds another position than the plan says")

    def _salt(self, segment: Segment, forwarded: _Forwarded) -> np.uint64:
        if segment.adapter is None:
            return np.uint64(self._seed)
        effect = self.adapters.effect(segment.adapter, segment.zo_seed)
        if effect.digest:
            forwarded.shifts.update(dict.fromkeys(range(segment.start, segment.start + segment.count), effect.shift))
        return np.uint64((self._seed + effect.digest) & _WORD)

    def _turn_starts(self, segment: Segment, pages: Ints, total: int) -> Ints:
        """By row the position of the last turn mark that it sees, 0 where it sees none."""
        starts = np.flatnonzero(self._tokens[pages].reshape(-1)[:total] == IM_START)
        if not starts.size:
            return np.zeros(segment.count, np.int64)
        at = self._positions[pages].reshape(-1)[starts].astype(np.int64)
        if segment.visible is None:
            last = np.searchsorted(starts, np.arange(segment.history, total), side="right") - 1
            return np.where(last >= 0, at[last], 0)
        return np.array([_last_seen(starts, at, ranges) for ranges in segment.visible], np.int64)

    def _logits(self, forwarded: _Forwarded, rows: Sequence[int]) -> Reals:
        """[rows, vocabulary]."""
        logits = self._prior[self._classes[forwarded.tokens[rows]]]
        logits += _unit(forwarded.states[rows][:, None] + self._id_salts) * np.float32(_NOISE)
        logits[:, IM_END] = text.end_logit(forwarded.ages[rows])
        for index, row in enumerate(rows):
            if row in forwarded.shifts:
                logits[index] += forwarded.shifts[row]
        return logits

    def _hidden(self, states: Hashes) -> Reals:
        """[rows, width], of root mean square 1 as after a final norm."""
        values = _unit(states[:, None] + self._hidden_salts) * 2 - 1
        normed: Reals = values / np.sqrt((values**2).mean(axis=1, keepdims=True))
        return normed


def _mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of a word on every other."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _unit(values: Hashes) -> Reals:
    """Words as float32 in [0, 1), 24 bits each."""
    return (_mix(values) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _seen(keys: Hashes, segment: Segment) -> Hashes:
    """By row the sum, modulo 2**64, of the *keys* (one per slot) that it sees."""
    if segment.visible is None:
        if segment.count == 1:
            return np.asarray(keys.sum(keepdims=True))
        return np.cumsum(keys)[segment.history :]
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(keys)))
    flat = [_clipped_sum(sums, ranges) for ranges in segment.visible]
    return np.array(flat, np.uint64)


def _clipped_sum(sums: Hashes, ranges: Ranges) -> int:
    last = sums.size - 1
    return sum(int(sums[min(stop, last)]) - int(sums[min(start, last)]) for start, stop in ranges) & _WORD


def _last_seen(slots: Ints, positions: Ints, ranges: Ranges) -> int:
    for start, stop in reversed(ranges):
        last = int(np.searchsorted(slots, stop)) - 1
        if last >= 0 and slots[last] >= start:
            return int(positions[last])
    return 0


def _refuse_unless(holds: bool, detail: str) -> None:
    if not holds:
        raise StepFailed(f"the dummy model was given a plan that cannot be right: {detail}")
