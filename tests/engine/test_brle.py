"""Run lengths against plain lists of booleans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest

RUNS = st.lists(st.integers(0, 9), max_size=12).map(tuple)
BOOLS = st.lists(st.booleans(), max_size=80)


def bools(runs: tuple[int, ...]) -> list[bool]:
    return [bool(number % 2) for number, run in enumerate(runs) for _ in range(run)]


def trimmed(values: list[bool]) -> list[bool]:
    while values and not values[-1]:
        values = values[:-1]
    return values


@given(BOOLS)
def test_bools_and_back(values):
    runs = brle.from_bools(values)
    assert bools(runs) == trimmed(values)
    assert runs == brle.normal(runs)
    assert all(brle.allows(runs, index) == value for index, value in enumerate(values))
    assert not brle.allows(runs, len(values))


@given(RUNS, st.integers(0, 100))
def test_bits_and_back(runs, size):
    wanted = (bools(runs) + [False] * size)[:size]
    bits = brle.to_bits(runs, size)
    assert len(bits) == -(-size // 32) * 4
    assert [bool(bits[index // 8] >> index % 8 & 1) for index in range(size)] == wanted
    assert brle.from_bits(bits, size) == brle.from_bools(wanted)


@given(RUNS)
def test_equal_masks_become_equal_tuples(runs):
    values = bools(runs)
    assert brle.normal(runs) == brle.from_bools(values)
    ranges = brle.to_ranges(runs)
    assert [any(start <= index < stop for start, stop in ranges) for index in range(len(values))] == values
    assert brle.from_ranges(reversed(ranges)) == brle.normal(runs)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 5))
def test_causal_and_sliding(position, window, sinks):
    assert bools(brle.causal(position)) == [True] * (position + 1)
    expected = [index < sinks or index > position - window for index in range(position + 1)]
    assert bools(brle.sliding(position, window, sinks)) == expected


@pytest.mark.parametrize("wrong", [(1, -1), (1.5,), (True,), ("a",)])
def test_what_is_no_run_is_refused(wrong):
    with pytest.raises(BadRequest, match="masks"):
        brle.check("masks", wrong)


def test_the_convention_of_the_first_run():
    assert bools((2, 3, 1)) == [False, False, True, True, True, False]
    assert bools((0, 2, 1)) == [True, True, False]
    assert brle.allows((2, 3, 1), 2) and not brle.allows((2, 3, 1), 0)
