"""The pool of pages: free runs against a plain set, holders, keys, eviction."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.errors import BadRequest, OutOfPages
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.pages import PagePool
from bakehouse.engine.plan.runs import FreeRuns


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_free_runs_are_a_set(orders: list[tuple[int, int]]) -> None:
    runs, free, taken = FreeRuns(40), set(range(40)), []
    for count, number in orders:
        if count and count <= runs.count:
            after = taken[number % len(taken)] if taken and number % 2 else None
            got = runs.take(count, after)
            assert len(set(got)) == count and free.issuperset(got)
            if after is not None and after + 1 in free:
                assert got[0] == after + 1
            free.difference_update(got)
            taken += got
        elif taken:
            page = taken.pop(number % len(taken))
            runs.give(page)
            free.add(page)
        assert runs.count == len(free)
        assert {page for start, length in runs.runs() for page in range(start, start + length)} == free
        joined = runs.runs()
        assert all(a + n < b for (a, n), (b, _) in pairwise(joined)), "neighbours are one run"


def test_two_that_grow_in_turns_both_get_consecutive_pages() -> None:
    pool = PagePool(64)
    one, other = pool.allocate(2), pool.allocate(2)
    for _ in range(14):
        one += pool.allocate(1, one[-1])
        other += pool.allocate(1, other[-1])
    assert one == list(range(one[0], one[0] + 16))
    assert other == list(range(other[0], other[0] + 16))


def test_counts_and_holders() -> None:
    pool = PagePool(4)
    (page,) = pool.allocate(1)
    assert (pool.free, pool.held, pool.cached) == (3, 1, 0) and pool.writable(page)
    pool.hold(page)
    assert not pool.writable(page)
    pool.release(page)
    pool.release(page)
    assert (pool.free, pool.held, pool.cached) == (4, 0, 0)
    assert pool.problems() == []


def test_a_committed_page_is_found_until_it_is_evicted() -> None:
    pool = PagePool(2)
    (page,) = pool.allocate(1)
    assert pool.publish(page, b"a") == page
    assert not pool.writable(page)
    pool.release(page)
    assert pool.cached == 1 and pool.find(b"a") == page
    pool.hold(page)
    assert (pool.held, pool.cached) == (1, 0)
    pool.release(page)
    pool.allocate(2)
    assert pool.find(b"a") is None and pool.evictions == 1
    assert pool.problems() == []


def test_the_page_that_was_not_held_for_longest_is_evicted_first() -> None:
    pool = PagePool(3)
    pages = pool.allocate(3)
    for page, key in zip(pages, (b"a", b"b", b"c"), strict=True):
        pool.publish(page, key)
    for page in (pages[1], pages[0], pages[2]):
        pool.release(page)
    pool.allocate(1)
    assert [pool.find(key) is None for key in (b"a", b"b", b"c")] == [False, True, False]


def test_equal_content_becomes_one_page() -> None:
    pool = PagePool(2)
    first, second = pool.allocate(2)
    assert pool.publish(first, b"a") == first
    assert pool.publish(second, b"a") == first
    assert (pool.free, pool.holders[first]) == (1, 2)


def test_out_of_pages_takes_none_and_says_how_many() -> None:
    pool = PagePool(3)
    pool.allocate(1)
    with pytest.raises(OutOfPages, match=r"3 pages are needed and 2 of 3"):
        pool.allocate(3)
    assert pool.free == 2


@pytest.mark.parametrize("name", ["pages", "page_size", "max_step_tokens", "max_step_rows", "prefill_chunk", "aging"])
def test_limits_are_checked_by_name(name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        PlanLimits(**{"pages": 1, name: 0})
