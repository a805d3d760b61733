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
    ends = np.minimum(np.cumsum(np.frombuffer(runs, "<u4"), dtype=np.uint64), size).astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    allowed = np.zeros(-(-size // 32) * 32, np.uint8)
    allowed[: int(ends[-1])] = np.repeat(np.arange(len(lengths), dtype=np.uint8) & 1, lengths)
    return np.packbits(allowed, bitorder="little").tobytes()


def runs_of(bits: bytes, size: int) -> bytes:
    """The inverse: run lengths that make *size* in all, not allowed first."""
    allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=size, bitorder="little")
    starts = np.flatnonzero(np.diff(allowed, prepend=0))
    return np.diff(starts, prepend=0, append=size).astype("<u4").tobytes()
