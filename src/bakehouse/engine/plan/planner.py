"""What the loop asks: which rows run next, and what follows from their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bakehouse.engine.errors import Cancelled, DeadlineExceeded, EngineError, LimitExceeded, NotFound, OutOfPages
from bakehouse.engine.plan import integrity, scheduler, sharing
from bakehouse.engine.plan.batch import Batch, Step
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.pages import PagePool
from bakehouse.engine.plan.passes import Outcome, Pass
from bakehouse.engine.plan.step import ReadoutResult
from bakehouse.engine.plan.table import ContextTable
from bakehouse.engine.plan.work import Part, Work


@dataclass(slots=True)
class Counters:
    """Since the start. ``rows`` ran; of them ``recomputed`` had run before and ``rejected`` were drafts that did not
    hold; ``adopted`` did not have to run, because their pages were there."""

    steps: int = 0
    rows: int = 0
    recomputed: int = 0
    adopted: int = 0
    drafted: int = 0
    rejected: int = 0
    copies: int = 0


class Planner:
    """Pure bookkeeping: no clock, no thread, no tensor. All calls are made under the loop's lock.

    At most one step is under way: `plan`, then `commit` or `fail`, then `plan` again.
    """

    def __init__(self, limits: PlanLimits, model: str = "") -> None:
        self.limits = limits
        self.pages = PagePool(limits.pages)
        self.contexts = ContextTable(self.pages, limits, model)
        self.counters = Counters()
        self.works: dict[Pass, Work] = {}
        self.running: Step | None = None
        self._fairness = scheduler.Fairness()
        self._arrivals = 0
        self._blocked: Work | None = None

    @property
    def preemptions(self) -> int:
        return self.contexts.preemptions

    def submit(self, pass_: Pass) -> None:
        """Take *pass_* in. It waits for those that came before it on the same context. Raises `NotFound` where the
        context was released."""
        scratch = pass_.context is None
        context = self.contexts.make_scratch(pass_.owner, pass_.program) if pass_.context is None else pass_.context
        if context.released:
            raise NotFound(f"context {context.id} was released")
        work = Work(pass_, context, self._place(pass_), scratch=scratch)
        context.queue.append(work)
        self.works[pass_] = work
        self._fairness.enter(pass_.owner)

    def cancel(self, pass_: Pass) -> None:
        """Give *pass_* up. Its outcome is `Cancelled`: of the next plan, or of the step that it is in. Else nothing."""
        work = self.works.get(pass_)
        if work is not None:
            work.error = work.error or Cancelled("it was cancelled")

    def idle(self) -> bool:
        """Whether nothing waits, runs, or has an error to be told."""
        return not self.works

    def check_integrity(self) -> None:
        """Raises `integrity.IntegrityError` with all that is wrong with pages and contexts."""
        integrity.check(self)

    def _place(self, pass_: Pass) -> int:
        """Its place by age; passes of one stream share that of the first, as long as they follow each other."""
        self._arrivals += 1
        context = pass_.context
        if context is None or not pass_.stream:
            return self._arrivals
        if context.stream != pass_.stream:
            context.stream, context.stream_seq = pass_.stream, self._arrivals
        return context.stream_seq

    # Plan

    def plan(self, now: float) -> Step:
        """The next step; it may have no parts. *now* is in the clock of deadlines, seconds."""
        if self.running is not None:
            raise RuntimeError("the step before was neither committed nor failed")
        step = Step()
        ready = self._ready(step, now)
        if ready:
            self._fill(Batch(self.limits, step), ready, now)
        if step.parts:
            self.running = step
            self.counters.steps += 1
            self._fairness.served({part.work.pass_.owner for part in step.parts})
        return step

    def _ready(self, step: Step, now: float) -> list[Work]:
        """The passes whose turn on their context it is. Those that are given up or late are handed back."""
        ready, over = [], []
        for work in self.works.values():
            deadline = work.pass_.deadline
            if work.error is not None or (deadline is not None and now > deadline):
                over.append(work)
            elif work.context.queue[0] is work:
                ready.append(work)
        for work in over:
            self._refuse(step, work, work.error or _late())
        if over:  # whoever waited behind them is ready now
            return self._ready(step, now)
        return ready

    def _refuse(self, step: Step, work: Work, error: EngineError) -> None:
        work.roll_back()
        self._end(work)
        step.failed.append((work.pass_, error))

    def _end(self, work: Work) -> None:
        del self.works[work.pass_]
        self._fairness.leave(work.pass_.owner)
        context = work.context
        if not context.released:
            context.queue.remove(work)
        if work.scratch:
            self.contexts.release(context)

    def _fill(self, batch: Batch, ready: list[Work], now: float) -> None:
        urgencies = scheduler.levels(ready, self.limits, now)
        first = self._blocked
        self._blocked = None
        if first is not None and first.pass_ in self.works and first.context.queue[0] is first:
            self._try(batch, first, 0)
        for works in urgencies:
            few, many = scheduler.split(works, self.limits)
            # so much of a step is not given to decodes while a prefill waits
            spare = min(self.limits.prefill_chunk, self.limits.max_step_tokens // 4) if many else 0
            for work in self._fairness.order(few, scheduler.by_turn):
                self._try(batch, work, spare)
            for work in self._fairness.order(many, scheduler.by_age):
                self._try(batch, work, 0)
        if not batch.step.parts:
            self._give_up(batch.step)

    def _give_up(self, step: Step) -> None:
        """Nothing runs that could free pages: the strongest of those who lack them ends."""
        work = self._blocked
        if work is None:
            return
        self._blocked = None
        try:
            self.contexts.make_room(self._missing(work, 0), keep=work.context, claim=work.claim)
        except OutOfPages as error:
            self._refuse(step, work, error)

    def _try(self, batch: Batch, work: Work, spare: int) -> None:
        """Put as much of *work* into the step as fits, if anything."""
        context = work.context
        if context.part is not None or work.pass_ not in self.works or batch.tokens_left <= spare:
            return
        try:
            if not work.begun:
                work.begin()
                self._check_fits(work)
                pins = not work.scratch and (work.whole or work.adapter is not None)
                self.contexts.charges.claim(context, self._pages_of(work), pins=pins)
            self._place_rows(batch, work, spare)
        except EngineError as error:
            self._refuse(batch.step, work, error)

    def _check_fits(self, work: Work) -> None:
        """Raises what can never run, whatever else is put aside."""
        limits, rows = self.limits, work.stop - work.base
        surely = work.drafts if work.pass_.every_draft else 0
        need = self._pages_of(work)
        if need > limits.pages:
            raise OutOfPages(f"this pass needs {need} pages of {limits.page_size} tokens, there are {limits.pages}")
        if work.whole and rows + work.drafts > limits.max_step_tokens:
            raise LimitExceeded(
                f"a pass whose masks look forward runs in one step; it has {rows + work.drafts} rows, a step has"
                f" {limits.max_step_tokens}"
            )
        room = min(limits.max_step_tokens, limits.prefill_chunk)
        if surely and not work.whole and surely + 1 > room:
            raise LimitExceeded(f"{surely} drafts are verified in one step, a step has room for {room - 1}")
        if len(work.wants) <= 1 and not work.whole and not surely:
            return
        most = len(work.wants) + work.drafts if work.whole else 0
        at, count = -1, 0
        for index, _, _ in work.wants:
            at, count = index, count + 1 if index == at else 1
            most = max(most, count)
        if surely:  # they are read out with the wants of the last row
            most = max(most, count + surely)
        if most > limits.max_step_rows:
            raise LimitExceeded(f"{most} results are wanted at once, a step has {limits.max_step_rows}")

    def _pages_of(self, work: Work) -> int:
        """How many pages its context has when the pass is over. Drafts that may be left out do not count."""
        return self.limits.pages_for(work.stop + (work.drafts if work.pass_.every_draft else 0))

    def _place_rows(self, batch: Batch, work: Work, spare: int) -> None:
        context = work.context
        spared, wait = sharing.adopt(work, batch.on_the_way) if self.limits.prefix_cache else (0, False)
        self.counters.adopted += spared
        if wait:
            return
        count, drafts = 0, 0
        if context.computed < work.stop:
            count, drafts = batch.rows_for(work, spare)
            if not count and (work.whole or work.pass_.every_draft):
                self._block(work)
            if drafts and not work.pass_.every_draft and not self._get_pages(work, drafts):
                count, drafts = count - drafts, 0  # rather no drafts than no pass
            if not count or not self._get_pages(work, drafts):
                return
            sharing.announce(work, context.computed + count, batch.on_the_way)
        batch.add(work, count, drafts)
        self._fairness.charge(work.pass_.owner, count)
        self._count(work, count, drafts)

    def _count(self, work: Work, count: int, drafts: int) -> None:
        self.contexts.touch(work.context)
        self.counters.rows += count
        self.counters.drafted += drafts
        self.counters.recomputed += max(min(count, work.base - work.context.computed), 0)
        self.counters.copies += len(work.context.part.originals) if work.context.part else 0

    def _missing(self, work: Work, drafts: int) -> int:
        """Pages that the rest of the pass needs: new ones, and one for the copy of a shared partial page."""
        context = work.context
        missing = max(self.limits.pages_for(work.stop + drafts) - len(context.pages), 0)
        index, filled = divmod(context.computed, self.limits.page_size)
        return missing + (1 if filled and not self.pages.writable(context.pages[index]) else 0)

    def _get_pages(self, work: Work, drafts: int) -> bool:
        """All pages that the pass needs, so that it does not stop half-way. Weaker claims are put aside for it."""
        context = work.context
        missing = self._missing(work, drafts)
        if not missing:
            return True
        try:
            self.contexts.make_room(missing, keep=context, claim=work.claim)
        except OutOfPages:
            self._block(work)
            return False
        new = self.limits.pages_for(work.stop + drafts) - len(context.pages)
        if new > 0:
            self.contexts.extend(context, new)
        return True

    def _block(self, work: Work) -> None:
        """*work* found no room, maybe because of others in this step: the strongest such goes first in the next."""
        if self._blocked is None or work.claim > self._blocked.claim:
            self._blocked = work

    # Commit

    def commit(self, step: Step, results: Sequence[ReadoutResult], now: float) -> list[tuple[Pass, Outcome]]:
        """Book what ran; one result per readout of ``step.plan``. Returns the passes that are over, and how they ended.

        A pass that was cancelled meanwhile, or is late, ends with that error and leaves its context as it was.
        """
        self._take_back(step)
        outcomes = []
        for part in step.parts:
            work = part.work
            for original in part.originals:
                self.pages.release(original.page)
            deadline = work.pass_.deadline
            error = work.error or (_late() if deadline is not None and now > deadline else None)
            error = error or _unsampled(part, results)
            outcome = Outcome(error=error) if error else self._book(part, results)
            if outcome is not None:
                if error:
                    work.roll_back()
                self._end(work)
                outcomes.append((work.pass_, outcome))
        return outcomes

    def fail(self, step: Step, error: EngineError) -> list[tuple[Pass, Outcome]]:
        """The runner could not: every pass of the step ends with *error*, and its context is as before the pass."""
        self._take_back(step)
        outcomes = []
        for part in step.parts:
            work, context = part.work, part.work.context
            for original in part.originals:
                pages = context.pages
                if original.at < len(pages) and pages[original.at] == original.copy:
                    self.pages.release(original.copy)
                    pages[original.at] = original.page
                else:  # released or rewound meanwhile
                    self.pages.release(original.page)
            work.roll_back()
            self._end(work)
            outcomes.append((work.pass_, Outcome(error=work.error or error)))
        return outcomes

    def _take_back(self, step: Step) -> None:
        if step is not self.running:
            raise RuntimeError("only the step that was planned last, once")
        self.running = None
        for part in step.parts:
            part.work.context.part = None

    def _book(self, part: Part, results: Sequence[ReadoutResult]) -> Outcome | None:
        """The rows of *part* are computed. Returns the outcome of a pass that is over with them."""
        work, context = part.work, part.work.context
        first_draft = part.readouts_stop - part.drafts
        for at in range(part.readouts_start, first_draft):
            work.results[work.wants[work.read][1]] = results[at]
            work.read += 1
        if not part.last:
            context.computed = part.first + part.count
            sharing.commit_filled(work, part.first)
            return None
        accepted: list[ReadoutResult] = []
        if work.pass_.drafts:
            accepted = self._verify(part, results[first_draft : part.readouts_stop])
        kept = max(len(accepted) - 1, 0)
        self.counters.rejected += part.drafts - kept
        context.computed = work.stop + kept
        sharing.commit_filled(work, part.first)
        work.complete(kept)
        self.contexts.trim(context)
        tokens = tuple(result.value for result in accepted if isinstance(result.value, int))
        return Outcome([result for result in work.results if result is not None], tokens, accepted)

    def _verify(self, part: Part, sampled: Sequence[ReadoutResult]) -> list[ReadoutResult]:
        """The sampled tokens up to and with the first that differs from its draft: what sampling one by one gives."""
        work = part.work
        last = work.stop - work.base - 1
        verifier = next(place for index, place, want in work.wants if index == last and want.sampler.yields_token)
        result = work.results[verifier]
        assert result is not None
        accepted = [result]
        limit = part.drafts if part.masks is None else min(part.drafts, part.masks - 1)
        for draft, following in zip(work.pass_.drafts[:limit], sampled, strict=False):
            if accepted[-1].value != draft or following.error is not None:
                break  # the next pass meets that error itself
            accepted.append(following)
        return accepted


def _unsampled(part: Part, results: Sequence[ReadoutResult]) -> EngineError | None:
    """The first error among the results of the pass's own wants."""
    for at in range(part.readouts_start, part.readouts_stop - part.drafts):
        if results[at].error is not None:
            return results[at].error
    return None


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("its deadline passed before its result was there")
