"""How many pages each program may have.

A page counts for each context that it is in, whether that shares it or not, and also while the context is put aside: so
what a program may do depends on its own contexts alone, not on what others do. A pass that is under way counts with the
pages that it will fill; drafts that may be left out do not count.

Pinned contexts cannot be put aside, so of them an owner has no more pages than three times what all leave free: the
first one three quarters, and there is always room for others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bakehouse.engine.errors import LimitExceeded
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.limits import PlanLimits

#: What an owner may have of something that all share, as a multiple of what is left free: three quarters where nobody
#: else has any.
SHARE = 3


class Charges:
    """Of the programs that have a limit. All calls are made under the loop's lock, and are O(programs of a context)."""

    def __init__(self, limits: PlanLimits) -> None:
        self._limits = limits
        self._allowed: dict[str, int] = {}
        self._charged: dict[str, int] = {}
        self._pinned: Counter[str] = Counter()

    def allow(self, program: str, pages: int) -> None:
        """Until `end`, the contexts that *program* has open may have *pages* pages in all."""
        self._allowed[program] = pages
        self._charged.setdefault(program, 0)

    def end(self, program: str) -> None:
        self._allowed.pop(program, None)
        self._charged.pop(program, None)

    def pages_of(self, program: str) -> int:
        """How many pages count for *program*, which has a limit."""
        return self._charged[program]

    def check(self, program: str, more: int) -> None:
        """Raises `LimitExceeded` where *program* may not have *more* pages."""
        allowed = self._allowed.get(program)
        if allowed is not None and self._charged[program] + more > allowed:
            raise LimitExceeded(
                f"pages: the contexts of this program have {self._charged[program]} KV pages and need {more} more, at"
                f" most {allowed} may be had; release contexts, or shorten them",
                field="pages",
            )

    def open(self, context: Context, program: str) -> None:
        """*program* has *context* open from now on."""
        context.programs.add(program)
        if program in self._charged:
            self._charged[program] += context.charged

    def check_pinned(self, context: Context, more: int) -> None:
        """Raises `LimitExceeded` where the owner of *context* may not pin *more* pages."""
        mine, free = self._pinned[context.owner] + more, self._limits.pages - self._pinned.total() - more
        if more > 0 and mine > SHARE * free:
            raise LimitExceeded(
                f"pages: {more} more are needed that cannot be put aside for others: their context used an adapter or a"
                f" mask that looks forward. Of {self._limits.pages} this owner has {mine - more} such pages already;"
                " release contexts, or shorten them",
                field="pages",
            )

    def claim(self, context: Context, pages: int, *, pins: bool = False) -> None:
        """Count *pages* pages for *context*, where it has not more. *pins*: it will be pinned. On `LimitExceeded`
        nothing is changed."""
        more = pages - context.charged
        if more > 0:
            for program in context.programs:
                self.check(program, more)
        pins = pins or context.pinned
        if pins:
            self.check_pinned(context, max(pages, context.charged) - context.pinned_pages)
        if more > 0:
            self._set(context, pages)
        if pins:
            self._pin(context, context.charged)

    def settle(self, context: Context) -> None:
        """Count what an idle context has."""
        self._set(context, self.needed(context))

    def release(self, context: Context) -> None:
        self._set(context, 0)

    def needed(self, context: Context) -> int:
        """The pages of its tokens, and those that it asked for."""
        asked = context.committed + context.reserved if context.reserved else 0
        return max(self._limits.pages_for(len(context.tokens)), asked)

    def _set(self, context: Context, pages: int) -> None:
        more = pages - context.charged
        if more:
            context.charged = pages
            for program in context.programs:
                if program in self._charged:
                    self._charged[program] += more
        self._pin(context, pages if context.pinned else 0)

    def _pin(self, context: Context, pages: int) -> None:
        self._pinned[context.owner] += pages - context.pinned_pages
        context.pinned_pages = pages
        if not self._pinned[context.owner]:
            del self._pinned[context.owner]

    def problems(self, contexts: Iterable[Context]) -> list[str]:
        """Programs and owners whose count is not that of their contexts, which must be all there are."""
        found: dict[str, int] = dict.fromkeys(self._charged, 0)
        pinned: Counter[str] = Counter()
        for context in contexts:
            pinned[context.owner] += context.pinned_pages
            for program in found.keys() & context.programs:
                found[program] += context.charged
        wrong = [f"{dict(self._pinned)} pinned pages are counted, there are {dict(+pinned)}"]
        return (wrong if +pinned != self._pinned else []) + [
            f"{pages} pages are counted for program {program}, its contexts have {found[program]}"
            for program, pages in self._charged.items()
            if pages != found[program]
        ]
