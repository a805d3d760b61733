"""A device that can be looked into, and a model of contexts that is too simple to be wrong.

The fake device keeps, for each (page, offset), what a transformer's KV depends on: the token, its position and adapter,
and through a hash all that its row saw. The naive model keeps each context as a plain list of such entries. Whatever
the planner does with pages, both must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bakehouse.engine.brle import allows
from bakehouse.engine.params import GREEDY
from bakehouse.engine.plan.batch import Step
from bakehouse.engine.plan.passes import Outcome, Pass, Want
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.plan.step import ReadoutResult, StepPlan

VOCABULARY = 3
WORD = (1 << 61) - 1


class Entry(NamedTuple):
    """``own`` is of the token alone, ``deep`` of all that it saw."""

    token: int
    position: int
    own: int
    deep: int


def own_value(token: int, position: int, adapter: object) -> int:
    return hash((token, position, adapter)) & WORD


def deep_value(own: int, before: Sequence[Entry], ahead: Sequence[int]) -> int:
    return hash((own, sum(entry.deep for entry in before) & WORD, sum(ahead) & WORD)) & WORD


def sampled(entry: Entry) -> int:
    return (entry.deep >> 7) % VOCABULARY


class FakeDevice:
    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.kv: dict[tuple[int, int], Entry] = {}
        self.rows = 0

    def at(self, pages: Sequence[int], slot: int) -> Entry:
        return self.kv[pages[slot // self.page_size], slot % self.page_size]

    def run(self, plan: StepPlan) -> list[ReadoutResult]:
        read = [
            (copy.target, offset, self.kv[copy.source, offset]) for copy in plan.copies for offset in range(copy.tokens)
        ]
        assert len({copy.target for copy in plan.copies}) == len(plan.copies)
        for target, offset, entry in read:
            self.kv[target, offset] = entry
        rows: list[Entry] = []
        written: set[tuple[int, int]] = set()
        for segment in plan.segments:
            assert segment.start == len(rows)
            own = [
                own_value(plan.tokens[row], plan.positions[row], (segment.adapter, segment.zo_seed))
                for row in range(segment.start, segment.start + segment.count)
            ]
            total = segment.history + segment.count
            assert len(segment.pages) * self.page_size >= total
            for slot in range(segment.history):
                position = segment.key_positions[slot] if segment.key_positions is not None else slot
                assert self.at(segment.pages, slot).position == position
            assert segment.key_positions is None or len(segment.key_positions) == total
            for number in range(segment.count):
                slot, row = segment.history + number, segment.start + number
                ranges = segment.visible[number] if segment.visible is not None else ((0, slot + 1),)
                seen = [s for start, stop in ranges for s in range(start, stop)]
                assert seen == sorted(set(seen))
                assert 0 <= seen[0] <= seen[-1] < total
                before = [self.at(segment.pages, s) for s in seen if s < slot]
                ahead = [own[s - segment.history] for s in seen if s >= slot]
                entry = Entry(
                    plan.tokens[row], plan.positions[row], own[number], deep_value(own[number], before, ahead)
                )
                place = (segment.pages[slot // self.page_size], slot % self.page_size)
                assert place not in written, "two rows write one place"
                written.add(place)
                self.kv[place] = entry
                rows.append(entry)
        assert len(rows) == len(plan.tokens) == len(plan.positions)
        self.rows += len(rows)
        return [ReadoutResult(sampled(rows[readout.row])) for readout in plan.readouts]

    def spoil(self, plan: StepPlan) -> None:
        """What a failed step may leave: anything in the places that it was to write."""
        for copy in plan.copies:
            for offset in range(copy.tokens):
                self.kv[copy.target, offset] = Entry(-1, -1, -1, -1)
        for segment in plan.segments:
            for slot in range(segment.history, segment.history + segment.count):
                self.kv[segment.pages[slot // self.page_size], slot % self.page_size] = Entry(-1, -1, -1, -1)


@dataclass
class Naive:
    """One context as a list."""

    entries: list[Entry] = field(default_factory=list)

    def copy(self) -> Naive:
        return Naive(list(self.entries))

    @property
    def last(self) -> int:
        return max((entry.position for entry in self.entries), default=-1)

    def run(self, pass_: Pass, drafts: int | None = None) -> Outcome:
        """What *pass_* must answer here with its first *drafts* drafts; its tokens are appended."""
        inputs, base = len(pass_.tokens), len(self.entries)
        start = self.last + 1
        positions = list(pass_.positions) if pass_.positions is not None else list(range(start, start + inputs))
        drafted = (
            list(pass_.draft_positions)
            if pass_.draft_positions is not None
            else list(range(positions[-1] + 1, positions[-1] + 1 + len(pass_.drafts)))
        )
        self._append(pass_, pass_.tokens, positions, 0)
        rows = self.entries[base:]
        results = [ReadoutResult(sampled(rows[want.index])) for want in pass_.wants]
        if not pass_.drafts:
            return Outcome(results)
        accepted = [sampled(rows[-1])]
        for number, draft in enumerate(pass_.drafts[:drafts]):
            if accepted[-1] != draft:
                break
            self._append(pass_, [draft], [drafted[number]], inputs + number)
            accepted.append(sampled(self.entries[-1]))
        return Outcome(results, tuple(accepted), [ReadoutResult(token) for token in accepted])

    def _append(self, pass_: Pass, tokens: Sequence[int], positions: Sequence[int], first: int) -> None:
        adapter = (pass_.adapter, pass_.zo_seed if pass_.adapter is not None else 0)
        base = len(self.entries)
        own = [own_value(*pair, adapter) for pair in zip(tokens, positions, strict=True)]
        for number, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            if pass_.masks is not None:
                mask = pass_.masks[first + number]
                sees = [allows(mask, p) for p in [*(e.position for e in self.entries[:base]), *positions]]
            else:
                sees = [p <= position for p in [*(e.position for e in self.entries[:base]), *positions]]
            slot = base + number
            before = [self.entries[s] for s in range(slot) if sees[s]]
            ahead = [own[s - base] for s in range(slot, base + len(tokens)) if sees[s]]
            self.entries.append(Entry(token, position, own[number], deep_value(own[number], before, ahead)))


@dataclass
class Rig:
    """A planner on a fake device."""

    planner: Planner

    def __post_init__(self) -> None:
        self.device = FakeDevice(self.planner.limits.page_size)
        self.now = 0.0
        self.outcomes: dict[Pass, Outcome] = {}
        self.steps: list[Step] = []

    def submit(self, *passes: Pass) -> None:
        for pass_ in passes:
            self.planner.submit(pass_)

    def step(self) -> Step:
        """Plan, run and commit once."""
        step = self.planner.plan(self.now)
        self.outcomes.update((pass_, Outcome(error=error)) for pass_, error in step.failed)
        if step.parts:
            self.outcomes.update(self.planner.commit(step, self.device.run(step.plan), self.now))
        self.planner.check_integrity()
        self.steps.append(step)
        return step

    def drain(self, most: int = 1000) -> None:
        """Until nothing waits."""
        for _ in range(most):
            if self.planner.idle():
                return
            self.step()
        raise AssertionError(f"not idle after {most} steps")

    def run(self, *passes: Pass) -> list[Outcome]:
        self.submit(*passes)
        self.drain()
        return [self.outcomes[pass_] for pass_ in passes]

    def feed(self, context: object, tokens: Sequence[int]) -> None:
        """Run *tokens* on *context*, wanting nothing."""
        (outcome,) = self.run(Pass("", context, list(tokens)))  # type: ignore[arg-type]
        assert outcome.error is None, outcome.error


def last_want(pass_tokens: Sequence[int]) -> list[Want]:
    return [Want(len(pass_tokens) - 1, GREEDY)]
