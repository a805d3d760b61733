"""All contexts of one model: their names, their lifetimes, and the pages that they share."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import Cancelled, LimitExceeded, NameTaken, OutOfPages
from bakehouse.engine.plan.charges import SHARE, Charges
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.pages import PagePool
from bakehouse.engine.plan.prefix import AdapterKey, KeyMaker
from bakehouse.engine.plan.visibility import looks_forward

#: How strongly a pass claims pages: its priority, then how early it came. A stronger one puts a weaker one aside.
Claim = tuple[int, int]


class ContextTable:
    """Names are an owner's, engine-wide. All calls are made under the loop's lock."""

    def __init__(self, pool: PagePool, limits: PlanLimits, model: str = "") -> None:
        self.pool = pool
        self.limits = limits
        self.page_size = limits.page_size
        self.key_maker = KeyMaker(model, salt_per_owner=limits.salt_per_owner)
        self.charges = Charges(limits)
        self.preemptions = 0
        self.contexts: dict[int, Context] = {}
        self.scratch: dict[int, Context] = {}  # of passes without a context
        self._owned: Counter[str] = Counter()
        self._names: dict[tuple[str, str], Context] = {}
        self._ids = count(1)
        self._ticks = count(1)

    # Names and lifetimes

    def create(self, owner: str, name: str | None = None, program: str = "") -> Context:
        """An empty context. A name that is taken moves to it: the context that had it lives on without a name while a
        program has it open, and is released when none has. Raises `LimitExceeded`."""
        self._admit(owner)
        context = self._add(Context(self, next(self._ids), owner, None), program)
        if name is not None:
            self._unbind(owner, name)
            self._bind(context, name)
        return context

    def lookup(self, owner: str, name: str, program: str = "") -> Context | None:
        """The context of that name, which *program* then has open too. Raises `LimitExceeded`."""
        context = self._names.get((owner, name))
        if context is not None and program not in context.programs:
            self.charges.check(program, context.charged)
            self.charges.open(context, program)
        return context

    def fork(self, context: Context, name: str | None = None, program: str = "") -> Context:
        """A context that equals *context*, buffer and transcript included, and goes its own way. O(pages).

        All pages are shared, the partial one too: whoever writes to it first works on a copy. A pass under way on
        *context* is not in the child. Raises `NameTaken` for a name that a running program has open, `LimitExceeded`.
        """
        self._admit(context.owner)
        if name is not None:
            held = self._names.get((context.owner, name))
            if held is not None and held.programs:
                raise NameTaken(f"a context named {name!r} is in use; release it or choose another name")
        self.charges.check(program, self.limits.pages_for(len(context.tokens)))
        if context.pinned:
            self.charges.check_pinned(context, self.limits.pages_for(len(context.tokens)))
        child = Context(self, next(self._ids), context.owner, None)
        self._share(context, child)
        self.charges.settle(child)
        self._add(child, program)
        if name is not None:
            self._unbind(context.owner, name)
            self._bind(child, name)
        return child

    def release(self, context: Context) -> None:
        """Free the context and its name; passes on it end as `Cancelled`. May be repeated."""
        if context.released:
            return
        context.released = True
        for work in context.queue:
            work.error = work.error or Cancelled("its context was released")
        context.queue.clear()
        self._drop_pages(context, 0)
        self.charges.release(context)
        if self.contexts.pop(context.id, None) is not None:
            self._owned[context.owner] -= 1
            if not self._owned[context.owner]:
                del self._owned[context.owner]
        self.scratch.pop(context.id, None)
        if context.name is not None:
            del self._names[context.owner, context.name]

    def end_program(self, program: str) -> None:
        """*program* is over: contexts that only it had open are released, but for named ones, which `lookup` finds."""
        self.charges.end(program)
        owners = set()
        for context in list(self.contexts.values()):
            if program in context.programs:
                context.programs.discard(program)
                if not context.programs and context.name is None:
                    self.release(context)
                elif not context.programs:
                    owners.add(context.owner)
        for owner in owners:
            self._forget_oldest(owner)

    def _forget_oldest(self, owner: str) -> None:
        """Release what programs of *owner* left behind beyond the limit."""
        left = [context for context in self.contexts.values() if context.owner == owner and not context.programs]
        left.sort(key=lambda context: context.last_used)
        for context in left[: max(len(left) - self.limits.max_left, 0)]:
            self.release(context)

    def make_scratch(self, owner: str, program: str = "") -> Context:
        """A context for one pass that was given none. It is in no list, and counts towards the limit of pages only."""
        context = Context(self, next(self._ids), owner, None)
        context.programs.add(program)
        self.scratch[context.id] = context
        return context

    def __len__(self) -> int:
        return len(self.contexts)

    def everything(self) -> Iterator[Context]:
        yield from self.contexts.values()
        yield from self.scratch.values()

    def _admit(self, owner: str) -> None:
        """An owner has no more than three times what is left free, so that there are always some for others."""
        most, mine = self.limits.max_contexts, self._owned[owner]
        if mine >= SHARE * (most - len(self.contexts)):
            raise LimitExceeded(f"there may be {most} contexts; of them this owner has {mine} already; release some")

    def _add(self, context: Context, program: str) -> Context:
        self.charges.open(context, program)
        self.contexts[context.id] = context
        self._owned[context.owner] += 1
        self.touch(context)
        return context

    def _bind(self, context: Context, name: str) -> None:
        context.name = name
        self._names[context.owner, name] = context

    def _unbind(self, owner: str, name: str) -> None:
        held = self._names.get((owner, name))
        if held is None:
            return
        if not held.programs:
            self.release(held)
            return
        held.name = None
        del self._names[owner, name]

    def _share(self, context: Context, child: Context) -> None:
        length = len(context.tokens)
        child.computed = min(context.computed, length)
        child.pages = context.pages[: self.limits.pages_for(child.computed)]
        if context.part is not None:  # its copies are not made yet: the originals hold what the child must see
            for original in context.part.originals:
                if original.at < len(child.pages) and child.pages[original.at] == original.copy:
                    child.pages[original.at] = original.page
        for page in child.pages:
            self.pool.hold(page)
        child.keys = context.keys[: context.committed]
        child.committed = context.committed
        child.tokens = context.tokens[:]
        child.positions = None if context.positions is None else context.positions[:length]
        child.visible = dict(context.visible)
        child.adapters = list(context.adapters)
        child.rising, child.last = context.rising, context.last
        child.pinned_at, child.private = context.pinned_at, context.private
        child.manual = context.manual
        child.buffered = list(context.buffered)
        child.transcript = context.transcript

    # Pages

    def touch(self, context: Context) -> None:
        context.last_used = next(self._ticks)

    def extend(self, context: Context, pages: int) -> None:
        """Add *pages* empty pages, which `make_room` has made sure of."""
        context.pages.extend(self.pool.allocate(pages, context.pages[-1] if context.pages else None))

    def pages_kept(self, context: Context) -> int:
        """How many pages an idle context holds at most: those with its KV, and those that it asked for."""
        asked = context.committed + context.reserved if context.reserved else 0
        return max(self.limits.pages_for(context.computed), asked)

    def trim(self, context: Context) -> None:
        """Give back empty pages that were not asked for, and those that only look empty: others still read them."""
        keep = self.pages_kept(context)
        for index in range(self.limits.pages_for(context.computed), min(keep, len(context.pages))):
            if not self.pool.writable(context.pages[index]):
                context.reserved = max(index - context.committed, 0)
                keep = index
                break
        if len(context.pages) > keep:
            self._drop_pages(context, keep)
        self.charges.settle(context)

    def put_aside(self, context: Context) -> None:
        """Take all pages of a context that is in no step; it will be computed again from its tokens when it must."""
        self._drop_pages(context, 0)
        context.computed = 0
        context.reserved = 0
        if not context.queue:  # else a pass of it has a claim, which goes on
            self.charges.settle(context)
        self.preemptions += 1

    def _drop_pages(self, context: Context, keep: int) -> None:
        dropped = context.pages[keep:]
        context.pages = context.pages[:keep]  # a new list: a step may be reading the old one
        for page in reversed(dropped):  # of a prefix the end is evicted first
            self.pool.release(page)

    def make_room(self, pages: int, *, keep: Context | None = None, claim: Claim | None = None) -> None:
        """See to it that *pages* pages can be allocated, putting aside idle contexts and then weaker claims.

        Raises `OutOfPages`, having put nothing aside, where that is not enough.
        """
        if pages <= self.pool.available:
            return
        gone: dict[int, int] = {}  # holds of each page that go with the chosen
        chosen = []
        gain = self.pool.available
        for context in self._victims(keep, claim):
            if gain >= pages:
                break
            chosen.append(context)
            for page in context.pages:
                gone[page] = gone.get(page, 0) + 1
                gain += gone[page] == self.pool.holders[page]
        if gain < pages:
            raise OutOfPages(
                f"{pages} more pages are needed; of {self.pool.total} only {gain} are free, cached or of contexts that"
                " can be put aside; release contexts, or serve the model with more pages"
            )
        holders = self.pool.holders  # one whose pages all stay with others need not lose them
        for context in [one for one in chosen if any(gone[page] == holders[page] for page in one.pages)]:
            self.put_aside(context)

    def _victims(self, keep: Context | None, claim: Claim | None) -> list[Context]:
        idle, waiting = [], []
        for context in self.everything():
            if context is keep or not context.pages or context.pinned or context.part is not None:
                continue
            if not context.queue:
                idle.append(context)
            elif claim is not None and context.queue[0].claim < claim:
                waiting.append(context)
        idle.sort(key=lambda context: context.last_used)
        waiting.sort(key=lambda context: context.queue[0].claim)
        return idle + waiting

    # Keys

    def page_key(
        self,
        context: Context,
        index: int,
        before: bytes | None,
        tokens: array[int],
        positions: Iterable[int],
        visible: Mapping[int, Ranges],
        adapters: Sequence[tuple[int, AdapterKey | None]],
    ) -> bytes:
        """The key of page *index* of *context*; *before* is that of the page before, None for the first page.

        *tokens* and *positions* are the page's own, *visible* and *adapters* those of the whole sequence, as a context
        holds them.
        """
        start, stop = index * self.page_size, (index + 1) * self.page_size
        seen = [(slot, visible[slot]) for slot in range(start, stop) if slot in visible] if visible else []
        if context.private or any(looks_forward(slot, slots) for slot, slots in seen):
            return self.key_maker.private()  # its KV depends on more than what stands before it
        if before is None:
            before = self.key_maker.root(context.owner)
        return self.key_maker.page(before, tokens, positions, seen, _runs_in(adapters, start, stop))

    def commit_page(self, context: Context) -> None:
        """Commit the first uncommitted page of an idle context, which is full."""
        index = len(context.keys)
        start, stop = index * self.page_size, (index + 1) * self.page_size
        before = context.keys[-1] if index else None
        tokens, positions = context.tokens[start:stop], context.page_positions(index)
        key = self.page_key(context, index, before, tokens, positions, context.visible, context.adapters)
        if context.computed >= stop:
            self.publish(context, index, key)
        else:
            context.keys.append(key)

    def publish(self, context: Context, index: int, key: bytes) -> None:
        """Commit the page at *index*, which is full, under *key*, the next of the context's.

        A page that it shares with a context that committed it before has a key already, and keeps it.
        """
        known = self.pool.key_of[context.pages[index]]
        if known is None:
            context.pages[index] = self.pool.publish(context.pages[index], key)
        context.keys.append(known or key)


def _runs_in(
    adapters: Sequence[tuple[int, AdapterKey | None]], start: int, stop: int
) -> list[tuple[int, AdapterKey | None]]:
    """The runs of adapters between two slots, none where there is no adapter."""
    runs: list[tuple[int, AdapterKey | None]] = []
    for first, adapter in adapters:
        if first <= start:
            runs = [(start, adapter)]
        elif first < stop:
            runs.append((first, adapter))
    return [] if all(adapter is None for _, adapter in runs) else runs
