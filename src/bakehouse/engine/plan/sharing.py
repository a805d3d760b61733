"""The prefix cache at work: pages that are there already are taken, pages that are on their way are waited for."""

from __future__ import annotations

from collections.abc import Set

from bakehouse.engine.plan.work import Work


def adopt(work: Work, on_the_way: Set[bytes]) -> tuple[int, bool]:
    """Take committed pages of equal content for rows that nobody wants a result of.

    Returns how many rows that spared, and whether the next page is among *on_the_way*: another pass computes it in this
    very step, so waiting for it costs nothing.
    """
    context = work.context
    pool, size = context.table.pool, context.table.page_size
    before = context.computed
    limit = work.adoptable
    index = before // size
    while (index + 1) * size <= limit:
        if index >= len(context.keys) and not (work.chained and index == len(context.keys)):
            break
        key = work.key(index)
        page = pool.find(key)
        if page is None:
            return context.computed - before, key in on_the_way
        _put(work, index, page)
        if index == len(context.keys):
            context.keys.append(key)
        index += 1
        context.computed = index * size
    else:
        if _adopt_part(work, index, limit, on_the_way):
            return max(context.computed - before, 0), True
    return max(context.computed - before, 0), False


def _adopt_part(work: Work, index: int, limit: int, on_the_way: Set[bytes]) -> bool:
    """Share page *index* for its slots below *limit* alone: a result of a later one is wanted, so that one is run.

    As with a fork's partial page, the pass writes to a copy. Answers whether the page is on its way.
    """
    context = work.context
    pool, size = context.table.pool, context.table.page_size
    known = index == len(context.keys) and work.chained and (index + 1) * size <= work.stop
    if not known or context.computed >= limit:
        return False
    page = pool.find(work.key(index))
    if page is None:
        return work.key(index) in on_the_way
    _put(work, index, page)
    context.computed = limit
    return False


def _put(work: Work, index: int, page: int) -> None:
    context = work.context
    pool = context.table.pool
    pool.hold(page)
    if index < len(context.pages):
        pool.release(context.pages[index])
        context.pages[index] = page
    else:
        context.pages.append(page)


def announce(work: Work, upto: int, on_the_way: set[bytes]) -> None:
    """Tell which pages will be committed when this step is: those that it fills with input, up to slot *upto*."""
    context = work.context
    size = context.table.page_size
    first = context.computed // size
    if not work.chained or work.whole or first > len(context.keys):
        return
    for index in range(first, min(upto, work.stop) // size):
        on_the_way.add(work.key(index))


def commit_filled(work: Work, first: int) -> None:
    """Commit the pages that are full by now, of those that were written from slot *first* on.

    One that another context committed meanwhile is held instead.
    """
    context = work.context
    pool, size = context.table.pool, context.table.page_size
    known = len(context.keys)
    full = context.computed // size
    for index in range(min(first // size, known), full):
        if index < known:
            if pool.key_of[context.pages[index]] is None:
                context.pages[index] = pool.publish(context.pages[index], context.keys[index])
        elif work.chained:
            context.table.publish(context, index, work.key(index))
