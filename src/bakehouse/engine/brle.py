"""Masks as run lengths (BRLE): lengths of alternating runs, false first; a leading zero starts with true.

``F F T T T F`` is ``(2, 3, 1)``, all true of length n is ``(0, n)``. What lies beyond the runs is false. Attention
masks are indexed by the absolute position of the key, logit masks by token id. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bakehouse.engine.errors import BadRequest

Brle = tuple[int, ...]
Ranges = tuple[tuple[int, int], ...]


def causal(position: int) -> Brle:
    """What a token at *position* may see by default: every key up to and with its own position."""
    return (0, position + 1)


def sliding(position: int, window: int, sinks: int = 0) -> Brle:
    """The last *window* positions up to *position*, and the first *sinks* positions."""
    start = max(position + 1 - window, 0)
    ranges = ((0, min(sinks, position + 1)), (start, position + 1))
    return from_ranges(ranges)


def check(field: str, runs: Iterable[int]) -> Brle:
    """*runs* as a tuple. Raises `BadRequest` naming *field* for anything but integers of zero or more."""
    if not isinstance(runs, Iterable):
        raise BadRequest.at(field, f"must be a sequence of run lengths, not {runs!r}")
    checked = tuple(runs)
    for run in checked:
        if not isinstance(run, int) or isinstance(run, bool) or run < 0:
            raise BadRequest.at(field, f"run lengths are integers of 0 or more, not {run!r}")
    return checked


def to_ranges(runs: Sequence[int]) -> Ranges:
    """The true parts as half-open ranges, in order, adjacent ones joined."""
    ranges: list[tuple[int, int]] = []
    at = 0
    for index, run in enumerate(runs):
        if index % 2 and run:
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], at + run)
            else:
                ranges.append((at, at + run))
        at += run
    return tuple(ranges)


def from_ranges(ranges: Iterable[tuple[int, int]]) -> Brle:
    """The shortest runs whose true parts are the union of *ranges*; they may overlap and come in any order."""
    runs: list[int] = []
    at = 0
    for start, stop in sorted(ranges):
        start = max(start, at)
        if stop <= start:
            continue
        if runs and start == at:
            runs[-1] += stop - start
        else:
            runs += [start - at, stop - start]
        at = stop
    return tuple(runs)


def from_bools(values: Iterable[bool]) -> Brle:
    """The runs of *values*, with a trailing false run left out."""
    runs = [0]
    state = False
    for value in values:
        if bool(value) != state:
            runs.append(0)
            state = not state
        runs[-1] += 1
    return normal(runs)


def normal(runs: Sequence[int]) -> Brle:
    """One spelling per mask: no inner run of zero, no trailing false run. Equal masks become equal tuples."""
    return from_ranges(to_ranges(runs))


def allows(runs: Sequence[int], index: int) -> bool:
    at = 0
    for number, run in enumerate(runs):
        at += run
        if index < at:
            return bool(number % 2)
    return False


def to_bits(runs: Sequence[int], size: int) -> bytes:
    """*runs* packed for a vocabulary of *size* ids: bit i (least significant first) of little-endian 32-bit words."""
    digits: list[str] = []
    left = size
    for number, run in enumerate(runs):
        if left <= 0:
            break
        digits.append("01"[number % 2] * min(run, left))
        left -= run
    # Python reads digits of base 2 in linear time; single bits set in a long integer would be quadratic.
    return int("".join(digits)[::-1] or "0", 2).to_bytes(-(-size // 32) * 4, "little")


def from_bits(bits: bytes, size: int) -> Brle:
    """The runs of a packed mask, the inverse of `to_bits`."""
    text = f"{int.from_bytes(bits, 'little'):0{size}b}"[::-1][:size].rstrip("0")
    runs = [len(run) for run in _RUNS.findall(text)]
    return (0, *runs) if text.startswith("1") else tuple(runs)


_RUNS = re.compile("0+|1+")
