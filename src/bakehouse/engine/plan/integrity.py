"""Whether the books are right: every page accounted for, every context consistent with its pages."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bakehouse.engine.plan.contexts import Context

if TYPE_CHECKING:
    from bakehouse.engine.plan.planner import Planner


class IntegrityError(AssertionError):
    """The engine's own books are wrong: a defect of the engine, never of a request."""


def check(planner: Planner) -> None:
    """Raises `IntegrityError` with everything that is wrong. Changes nothing; looks at every page and context."""
    pool, table = planner.pages, planner.contexts
    problems = pool.problems()
    if pool.free + pool.held + pool.cached != pool.total:
        problems.append(f"{pool.free} free + {pool.held} held + {pool.cached} cached is not {pool.total}")
    holders: Counter[int] = Counter()
    for context in table.everything():
        holders.update(context.pages)
        problems += [f"context {context.id}: {text}" for text in _problems(context)]
    for part in planner.running.parts if planner.running else ():
        holders.update(original.page for original in part.originals)
    for page, count in enumerate(pool.holders):
        if count != holders[page]:
            problems.append(f"page {page} counts {count} holders and has {holders[page]}")
    problems += table.charges.problems(table.everything())
    if not planner.works and table.scratch:
        problems.append(f"{len(table.scratch)} passes without a context left one behind")
    if problems:
        raise IntegrityError("; ".join(problems))


def _problems(context: Context) -> list[str]:
    table, pages, length = context.table, context.pages, len(context.tokens)
    limits, found = table.limits, []
    if context.released or len(set(pages)) != len(pages):
        found.append("it is released, or holds a page twice")
    if context.committed * table.page_size > length or len(context.keys) < context.committed:
        found.append(f"{context.committed} committed pages, {len(context.keys)} keys and {length} tokens do not agree")
    if len(pages) < limits.pages_for(context.computed):
        found.append(f"{context.computed} tokens are computed and {len(pages)} pages are there")
    if context.positions is not None and len(context.positions) != length:
        found.append(f"{len(context.positions)} positions for {length} tokens")
    if context.pinned and context.computed < length:
        found.append("it cannot be computed again, and has lost pages")
    if not context.busy:
        if context.charged != table.charges.needed(context):
            found.append(f"{context.charged} pages are counted for its programs")
        if context.pinned_pages != (context.charged if context.pinned else 0):
            found.append(f"{context.pinned_pages} pages are counted as pinned")
        if context.computed > length:
            found.append(f"{context.computed} of {length} tokens are computed and nothing is under way")
        if len(pages) > table.pages_kept(context):
            found.append(f"{len(pages)} pages are held, {table.pages_kept(context)} are needed")
        if len(context.keys) != context.committed:
            found.append(f"{len(context.keys)} keys for {context.committed} committed pages")
    for index in range(min(context.computed // table.page_size, len(context.keys))):
        if table.pool.key_of[pages[index]] != context.keys[index]:
            found.append(f"page {pages[index]} is not the one of its key")
    return found
