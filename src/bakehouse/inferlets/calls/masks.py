"""Masks over a vocabulary: run lengths as guests write them, bits as the engine takes them.

Each is kept in the form in which it came, and converted where the other is asked for: a mask that a matcher made, and a
pass uses, is never converted. 150,000 entries take well under a millisecond either way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bakehouse.engine.errors import BadRequest


@dataclass(slots=True, eq=False)
class Mask:
    """``runs`` are packed, from a guest; or ``bits`` of ``size`` ids, from a matcher."""

    runs: bytes | None = None
    bits: bytes = b""
    size: int = 0
    _made: tuple[int, bytes] = field(default=(0, b""))

    def packed(self, size: int) -> bytes | None:
        """As `GenerateRequest.logit_mask` takes it, for a vocabulary of *size*; None where nothing is restricted."""
        if self.runs is None:
            if size != self.size:
                raise BadRequest.at("mask", f"it is one of {self.size} ids, the model has {size}")
            return self.bits
        if not self.runs:
            return None
        if self._made[0] != size:
            self._made = (size, bits_of(self.runs, size))
        return self._made[1]

    def read(self) -> bytes:
        return runs_of(self.bits, self.size) if self.runs is None else self.runs


def bits_of(runs: bytes, size: int) -> bytes:
    """*runs*, little-endian, unsigned, of 32 bits, as bits: bit i is id i, in words of 32 bits, 0 where none is."""
    lengths = np.frombuffer(runs, "<u4")
    lengths = lengths[: len(lengths) // 2 * 2]  # behind the last run nothing is allowed, as within one of odd place
    ends = np.cumsum(lengths, dtype=np.int64)
    np.minimum(ends, size, out=ends)
    turns = np.bincount(ends, minlength=size + 1)[:size].astype(np.uint8) & 1
    allowed = int.from_bytes(np.packbits(turns, bitorder="little").tobytes(), "little")
    # An id is allowed where an odd number of runs ended at it or before: sums of doubled length, modulo 2, bit by bit.
    step = 1
    while step < size:
        allowed ^= allowed << step
        step *= 2
    words = -(-size // 32)
    return (allowed & ((1 << size) - 1)).to_bytes(words * 4, "little")


def runs_of(bits: bytes, size: int) -> bytes:
    """The inverse: run lengths that make *size* in all, not allowed first."""
    allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=size, bitorder="little")
    starts = np.flatnonzero(allowed[1:] != allowed[:-1])
    starts += 1
    ends = np.empty(len(starts) + 1 + int(allowed[0]), "<u4")
    ends[0], ends[-1] = 0, size
    ends[int(allowed[0]) : -1] = starts
    ends[1:] -= ends[:-1].copy()
    return ends.tobytes()
