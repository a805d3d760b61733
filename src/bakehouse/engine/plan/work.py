"""A pass under way: which rows it has, how far it is, and what it does to its context in the end.

Its sequence is what the context holds (slots ``0 .. base``), its input (``base .. stop``) and its drafts behind that.
The context's own tokens change only when the pass is over, so that giving it up at any moment leaves them as they were.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bakehouse.engine import brle
from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import BadRequest, EngineError
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.plan.prefix import AdapterKey
from bakehouse.engine.plan.step import ReadoutResult
from bakehouse.engine.plan.table import Claim
from bakehouse.engine.plan.visibility import causal, looks_forward, rises_of, slots_at, slots_upto

NOTHING: Mapping[int, Ranges] = {}
#: Positions and token ids lie below this.
TOP = 2**31
#: Rows times rises: more of it would hold up everybody.
MOST_LOOKUPS = 1_000_000


class Original(NamedTuple):
    """The context's page at place *at* was *page* before the step, which copies it to *copy*."""

    at: int
    page: int
    copy: int


@dataclass(slots=True, eq=False)
class Part:
    """The share of one pass in one step: slots ``first .. first + count``, the last ``drafts`` of them drafts.

    Its readouts are ``plan.readouts[readouts_start:readouts_stop]``: first those of ``work.wants[read:]``, then one for
    each draft. ``last``: the pass ends with this step. ``originals``: pages that it writes a copy of.
    """

    work: Work
    first: int
    count: int = 0
    drafts: int = 0
    last: bool = False
    readouts_start: int = 0
    readouts_stop: int = 0
    masks: int | None = None
    originals: list[Original] = field(default_factory=list)

    @property
    def pass_(self) -> Pass:
        return self.work.pass_

    @property
    def needs_masks(self) -> bool:
        """Whether the pass has a mask source and its last row is in this step."""
        return self.last and self.work.pass_.mask_source is not None

    @property
    def draft_tokens(self) -> Sequence[int]:
        """The drafts that are run: not always all that the pass had."""
        return self.work.pass_.drafts[: self.drafts]


class Work:
    __slots__ = (
        "adapter",
        "adapters",
        "ahead",
        "ahead_from",
        "base",
        "begun",
        "claim",
        "context",
        "drafts",
        "error",
        "pass_",
        "positions",
        "read",
        "results",
        "rising",
        "scratch",
        "seq",
        "stop",
        "submitted",
        "visible",
        "wants",
        "whole",
    )

    def __init__(self, pass_: Pass, context: Context, seq: int, *, scratch: bool) -> None:
        self.pass_ = pass_
        self.context = context
        self.scratch = scratch
        self.seq = seq
        self.claim: Claim = (pass_.priority, -seq)
        self.submitted: float | None = None  # when planning first saw it
        self.error: EngineError | None = None  # why it is given up
        self.begun = False
        self.base = self.stop = 0
        self.drafts = 0
        self.positions: list[int] | None = None  # of the whole sequence; None: position == slot
        self.rising = True
        self.visible: Mapping[int, Ranges] = NOTHING
        self.whole = False  # its rows see each other both ways and must run in one step
        self.adapter: AdapterKey | None = None
        self.adapters: Sequence[tuple[int, AdapterKey | None]] = ()
        self.wants: list[tuple[int, int, Want]] = []  # (index, place among the pass's wants, want), by index
        self.read = 0  # how many of them have their result
        self.results: list[ReadoutResult | None] = []
        self.ahead: list[bytes] = []  # keys of pages from `ahead_from` on
        self.ahead_from = 0

    # Before the first row

    def begin(self) -> None:
        """Fix the rows, from what the context holds now. Raises `BadRequest`; the context is untouched in any case."""
        pass_, context = self.pass_, self.context
        self.base = len(context.tokens)
        self.stop = self.base + len(pass_.tokens)
        self.drafts = len(pass_.drafts)
        self._order_wants()
        self._check_tokens()
        self._place(context)
        if pass_.masks is not None or not self.rising:
            self._see(context)
        if pass_.adapter is not None:
            self.adapter = AdapterKey(pass_.adapter, pass_.generation, pass_.zo_seed)
        current = context.adapters[-1][1] if context.adapters else None
        self.adapters = context.adapters
        if self.adapter != current:
            self.adapters = [*context.adapters, (self.base, self.adapter)]
        self.ahead_from = len(context.keys)
        self.begun = True

    def _order_wants(self) -> None:
        wants = [(want.index, place, want) for place, want in enumerate(self.pass_.wants)]
        if len(wants) > 1:
            wants.sort(key=lambda want: want[0])
        inputs = self.stop - self.base
        if not inputs:
            raise BadRequest.at("tokens", "a pass needs at least one input token")
        if wants and not 0 <= wants[0][0] <= wants[-1][0] < inputs:
            raise BadRequest.at("samplers.indices", f"must lie between 0 and {inputs - 1}")
        if self.drafts and not any(index == inputs - 1 and want.sampler.yields_token for index, _, want in wants):
            raise BadRequest.at("draft_tokens", "drafts are verified by a token sampler at the last input index")
        self.wants = wants
        self.results = [None] * len(wants)

    def _check_tokens(self) -> None:
        for tokens in (self.pass_.tokens, self.pass_.drafts):
            if tokens and not 0 <= min(tokens) <= max(tokens) < TOP:
                raise BadRequest.at("tokens", f"ids lie between 0 and {TOP - 1}")

    def _place(self, context: Context) -> None:
        """Positions of the new rows, and whether they still rise with the slots."""
        pass_, start = self.pass_, context.last + 1
        if pass_.positions is None and pass_.draft_positions is None and context.positions is None:
            return
        given = range(start, start + len(pass_.tokens)) if pass_.positions is None else pass_.positions
        behind = given[-1] + 1 if given else start
        drafted = range(behind, behind + self.drafts) if pass_.draft_positions is None else pass_.draft_positions
        new = [*given, *drafted]
        if len(given) != len(pass_.tokens) or len(drafted) != self.drafts or min(new) < 0 or max(new) >= TOP:
            raise BadRequest.at("positions", f"one for each token and each draft is needed, from 0 to {TOP - 1}")
        if context.positions is None and new == list(range(self.base, self.stop + self.drafts)):
            return
        self.rising = context.rising and rises(new, context.last)
        self.positions = [*(range(self.base) if context.positions is None else context.positions), *new]

    def _see(self, context: Context) -> None:
        """What each new row sees, kept where that is not simply all slots up to its own.

        Input rows see no draft, and a draft none behind it: what is computed must not depend on what will be rejected.
        """
        masks = self.pass_.masks
        visible: dict[int, Ranges] = {}
        rises = () if self.positions is None else rises_of(self.positions)
        if len(rises) * (self.stop + self.drafts - self.base) > MOST_LOOKUPS:
            raise BadRequest.at("positions", f"they go back {len(rises) - 1} times, too often for so many tokens")
        if masks is not None and len(masks) != self.stop + self.drafts - self.base:
            raise BadRequest.at("masks", "one for each input and each draft token is needed")
        for slot in range(self.base, self.stop + self.drafts):
            limit = self.stop if slot < self.stop else slot + 1
            if masks is not None:
                seen = slots_at(brle.to_ranges(masks[slot - self.base]), self.positions, rises, limit)
            elif self.positions is None or self.rising:
                continue
            else:
                seen = slots_upto(self.positions[slot], self.positions, rises, limit)
            if not seen:
                raise BadRequest.at(f"masks[{slot - self.base}]", "lets its token see nothing, not even itself")
            if seen != causal(slot):
                visible[slot] = seen
                self.whole = self.whole or looks_forward(slot, seen)
        self.visible = visible

    # While it runs

    def position(self, slot: int) -> int:
        return slot if self.positions is None else self.positions[slot]

    def tokens(self, start: int, stop: int) -> array[int]:
        """The ids in the slots ``start .. stop`` of context, input and drafts."""
        base, pass_ = self.base, self.pass_
        found = self.context.tokens[start:stop] if start < base else array("i")
        if stop > base:
            found.extend(pass_.tokens[max(start - base, 0) : stop - base])
        if stop > self.stop:
            found.extend(pass_.drafts[max(start - self.stop, 0) : stop - self.stop])
        return found

    @property
    def adoptable(self) -> int:
        """Slots below this one need not be run when their KV is there: nobody waits for a result of theirs."""
        if self.whole:
            return self.base
        return self.base + self.wants[self.read][0] if self.read < len(self.wants) else self.stop

    @property
    def chained(self) -> bool:
        """Whether its pages are committed as they fill, and so can be shared by key."""
        return self.rising and not self.context.manual

    def key(self, index: int) -> bytes:
        """The key of page *index*; with a chain of keys up to it, each made once."""
        context = self.context
        if index < len(context.keys):
            return context.keys[index]
        while self.ahead_from + len(self.ahead) <= index:
            self.ahead.append(self._make_key(self.ahead_from + len(self.ahead)))
        return self.ahead[index - self.ahead_from]

    def _make_key(self, index: int) -> bytes:
        table, size = self.context.table, self.context.table.page_size
        start, stop = index * size, (index + 1) * size
        before = self.key(index - 1) if index else None
        tokens = self.tokens(start, stop)
        positions = range(start, stop) if self.positions is None else self.positions[start:stop]
        visible = self.visible
        if self.context.visible:
            visible = {**self.context.visible, **visible}
        return table.page_key(self.context, index, before, tokens, positions, visible, self.adapters)

    # When it is over

    def complete(self, accepted: int) -> None:
        """The context takes over the input and the first *accepted* drafts, whose KV is there."""
        context, pass_ = self.context, self.pass_
        context.tokens.extend(pass_.tokens)
        if accepted:
            context.tokens.extend(pass_.drafts[:accepted])
        length = len(context.tokens)
        if self.positions is None:
            context.last = length - 1
        else:
            new = self.positions[self.base : length]
            context.rising = context.rising and rises(new, context.last)
            context.last = max(context.last, *new)
            context.positions = self.positions if length == len(self.positions) else self.positions[:length]
        if self.visible:
            context.visible.update((slot, seen) for slot, seen in self.visible.items() if slot < length)
        if len(self.adapters) > len(context.adapters):
            context.adapters.append(self.adapters[-1])
        if (self.whole or self.adapter is not None) and context.pinned_at is None:
            context.pinned_at = self.base
        context.reserved = max(context.reserved - (len(context.keys) - context.committed), 0)
        context.committed = len(context.keys)

    def roll_back(self) -> None:
        """The context as it was before the pass; pages that were committed on the way stay in the cache."""
        context = self.context
        if context.released or not self.begun:
            return
        del context.keys[context.committed :]
        context.computed = min(context.computed, self.base)
        context.table.trim(context)


def rises(positions: Sequence[int], last: int) -> bool:
    for position in positions:
        if position <= last:
            return False
        last = position
    return True
