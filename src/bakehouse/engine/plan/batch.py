"""Rows of many passes become one step."""

from __future__ import annotations

from dataclasses import dataclass, field

from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import EngineError
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.plan.step import Copy, Readout, Segment, StepPlan
from bakehouse.engine.plan.visibility import causal
from bakehouse.engine.plan.work import Original, Part, Work


@dataclass(slots=True, eq=False)
class Step:
    """``plan`` for the runner, ``parts`` for `Planner.commit`, ``failed`` to hand back at once.

    A step with parts must be committed or failed before the next is planned, also where its plan has no rows: all that
    such passes needed was in the prefix cache.
    """

    plan: StepPlan = field(default_factory=StepPlan)
    parts: list[Part] = field(default_factory=list)
    failed: list[tuple[Pass, EngineError]] = field(default_factory=list)

    def set_masks(self, part: Part, masks: list[bytes | None]) -> None:
        """Give *part* what its mask source made of `Part.draft_tokens`. Drafts behind the last mask do not count."""
        readouts = self.plan.readouts
        drafts_from = part.readouts_stop - part.drafts
        last = part.work.stop - part.work.base - 1
        for at, (index, _, want) in enumerate(_wants_of(part), part.readouts_start):
            if index == last and want.mask is None:
                readouts[at].mask = masks[0]
        for at, mask in zip(range(drafts_from, part.readouts_stop), masks[1:], strict=False):
            readouts[at].mask = mask
        part.masks = len(masks)


def _wants_of(part: Part) -> list[tuple[int, int, Want]]:
    work = part.work
    return work.wants[work.read : work.read + part.readouts_stop - part.drafts - part.readouts_start]


@dataclass(slots=True, eq=False)
class Batch:
    """A step in the making, and what may still be put into it."""

    limits: PlanLimits
    step: Step
    on_the_way: set[bytes] = field(default_factory=set)
    tokens_left: int = field(init=False)
    rows_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens_left = self.limits.max_step_tokens
        self.rows_left = self.limits.max_step_rows

    def rows_for(self, work: Work, spare: int) -> tuple[int, int]:
        """(rows, drafts among them) that this step has room for, leaving *spare* rows to others."""
        computed = work.context.computed
        room = min(self.tokens_left - spare, self.limits.prefill_chunk)
        stop = work.stop
        if work.whole and computed >= work.base:
            return self._all_or_nothing(work)
        if computed < work.base and (work.whole or len(work.adapters) > len(work.context.adapters)):
            stop = work.base  # what is computed again runs by itself, as it did the first time
        wants, readouts = len(work.wants) - work.read, self.rows_left
        if wants > readouts:
            stop = min(stop, work.base + work.wants[work.read + readouts][0])
            if stop <= computed:
                return 0, 0
        count = stop - computed
        if count > room:
            count = max(room, 0)
            end = computed + count
            aligned = end - end % self.limits.page_size
            return (aligned - computed if aligned > computed else count), 0
        drafts = max(min(work.drafts, room - count, readouts - wants), 0) if stop == work.stop else 0
        if stop == work.stop and drafts < work.drafts and work.pass_.every_draft:
            return count - 1, 0  # the last row waits for a step that has room for all drafts
        return count + drafts, drafts

    def _all_or_nothing(self, work: Work) -> tuple[int, int]:
        total = work.stop - work.context.computed + work.drafts
        fits = total <= self.tokens_left and len(work.wants) + work.drafts <= self.rows_left
        return (total, work.drafts) if fits else (0, 0)

    def add(self, work: Work, count: int, drafts: int) -> None:
        """Put the next *count* rows of *work* into the step. Its pages are there; shared ones are copied here."""
        context, plan = work.context, self.step.plan
        first = context.computed
        part = Part(work, first, count, drafts, last=first + count - drafts == work.stop)
        self._own_partial_page(part)
        start = len(plan.tokens)
        if count:
            stop = first + count
            plan.tokens.extend(work.tokens(first, stop))
            plan.positions.extend(range(first, stop) if work.positions is None else work.positions[first:stop])
            plan.segments.append(
                Segment(
                    start,
                    count,
                    first,
                    context.pages,
                    visible=_visible(work, first, stop),
                    key_positions=_key_positions(work, stop),
                    adapter=None if work.adapter is None or first < work.base else work.adapter.slot,
                    zo_seed=0 if work.adapter is None or first < work.base else work.adapter.zo_seed,
                )
            )
        self._read_out(part, start)
        self.tokens_left -= count
        self.rows_left -= part.readouts_stop - part.readouts_start
        context.part = part
        self.step.parts.append(part)

    def _own_partial_page(self, part: Part) -> None:
        """A partial page that is shared or committed is left to the others: this pass writes to a copy of it."""
        context = part.work.context
        pool, size = context.table.pool, context.table.page_size
        index, filled = divmod(part.first, size)
        if not part.count or not filled or pool.writable(context.pages[index]):
            return
        original = context.pages[index]
        (target,) = pool.allocate(1, context.pages[index - 1] if index else None)
        context.pages[index] = target
        part.originals.append(Original(index, original, target))
        self.step.plan.copies.append(Copy(original, target, filled))

    def _read_out(self, part: Part, start: int) -> None:
        work, readouts = part.work, self.step.plan.readouts
        part.readouts_start = part.readouts_stop = len(readouts)
        wants = work.wants
        if work.read == len(wants):
            return
        behind = part.first + part.count - part.drafts - work.base
        offset = start + work.base - part.first
        verifier: Want | None = None
        for at in range(work.read, len(wants)):
            index, _, want = wants[at]
            if index >= behind:
                break
            readouts.append(_readout(want, offset + index))
            if verifier is None and part.drafts and index == behind - 1 and want.sampler.yields_token:
                verifier = want
        if verifier is not None:
            for number in range(1, part.drafts + 1):
                readouts.append(_draft_readout(work.pass_, verifier, offset + behind - 1, number))
        part.readouts_stop = len(readouts)


def _readout(want: Want, row: int) -> Readout:
    return Readout(
        row,
        want.sampler,
        want.seed,
        want.draw,
        want.mask,
        want.penalties,
        want.prompt,
        want.generated,
        want.logprobs,
        want.want_logprob,
    )


def _draft_readout(pass_: Pass, want: Want, row: int, number: int) -> Readout:
    """What *want* asks of the row of draft *number*, counted from 1, should the drafts before it hold."""
    readout = _readout(want, row + number)
    readout.draw = want.draw + number
    if want.penalties.needs_history:
        readout.generated = [*want.generated, *pass_.drafts[:number]]
    return readout


def _key_positions(work: Work, stop: int) -> list[int] | None:
    positions = work.positions
    return positions if positions is None or len(positions) == stop else positions[:stop]


def _visible(work: Work, first: int, stop: int) -> list[Ranges] | None:
    """What each row sees, or None where each sees all slots up to its own."""
    past = work.context.visible if first < work.base else {}
    if not past and not work.visible:
        return None
    rows = range(first, stop)
    if not any(slot in past or slot in work.visible for slot in rows):
        return None
    return [past.get(slot) or work.visible.get(slot) or causal(slot) for slot in rows]
