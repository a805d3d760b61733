"""Slots that a row sees, against the definition."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.brle import from_bools, from_ranges, to_ranges
from bakehouse.engine.plan.visibility import causal, looks_forward, rises_of, slots_at, slots_upto

POSITIONS = st.lists(st.integers(0, 12), min_size=1, max_size=16)


@given(POSITIONS, st.lists(st.booleans(), max_size=14), st.integers(0, 16))
def test_slots_of_a_mask(positions: list[int], mask: list[bool], limit: int) -> None:
    limit = min(limit, len(positions))
    expected = [position < len(mask) and mask[position] for position in positions[:limit]]
    seen = slots_at(to_ranges(from_bools(mask)), positions, rises_of(positions), limit)
    assert from_ranges(seen) == from_bools(expected)
    assert seen == to_ranges(from_ranges(seen)), "ordered and joined"


@given(POSITIONS, st.integers(0, 13))
def test_slots_up_to_a_position(positions: list[int], position: int) -> None:
    seen = slots_upto(position, positions, rises_of(positions), len(positions))
    assert from_ranges(seen) == from_bools(p <= position for p in positions)


@given(st.lists(st.booleans(), max_size=14), st.integers(0, 14))
def test_where_positions_are_slots(mask: list[bool], limit: int) -> None:
    ranges = to_ranges(from_bools(mask))
    assert slots_at(ranges, None, (), limit) == slots_at(ranges, list(range(14)), ((0, 14),), limit)


@given(POSITIONS)
def test_rises_cover_everything_and_rise(positions: list[int]) -> None:
    rises = rises_of(positions)
    assert [slot for start, stop in rises for slot in range(start, stop)] == list(range(len(positions)))
    assert sum(b <= a for a, b in pairwise(positions)) == len(rises) - 1
    assert all(sorted(set(positions[a:b])) == positions[a:b] for a, b in rises)


def test_looking_forward() -> None:
    assert not looks_forward(3, causal(3))
    assert not looks_forward(3, ((0, 1),))
    assert looks_forward(3, ((0, 1), (4, 5)))
