"""Random numbers by name instead of by order: Philox4x32-10, a counter-based generator.

A number is a function of a key (the seed) and a counter (which draw), so it does not depend on what else is drawn, in
which order, or on which device. The function is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011), and agrees with Random123, and with Triton's `randint4x`, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Words = tuple[Any, Any, Any, Any]

_ROUND = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
#: Below so many numbers Python's integers are faster than numpy's calls.
_FEW = 12


def philox(counter: Words, key: tuple[Any, Any]) -> Words:
    """Four 32-bit words from a 128-bit *counter* and a 64-bit *key*, both as 32-bit words, lowest first.

    The words may be Python integers, uint64 arrays of numpy or int64 tensors of torch, or broadcast together; each
    holds one 32-bit word per element, and so does the answer. Products of 64 bits may wrap, which changes no word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * _ROUND[0], c2 * _ROUND[1]
        c0, c2 = ((second >> 32) & _WORD) ^ c1 ^ k0, ((first >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = second & _WORD, first & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def uniform(seeds: Sequence[int], draws: Sequence[int]) -> npt.NDArray[np.float64]:
    """Number *draws[i]* of the stream *seeds[i]*, in [0, 1), with 53 random bits. Both count modulo 2**64."""
    if len(seeds) <= _FEW:
        pairs = zip(seeds, draws, strict=True)
        return np.array([_unit(*philox(_split(draw), _split(seed)[:2])[:2]) for seed, draw in pairs], np.float64)
    x0, x1, _, _ = philox(_split(_words(draws)), _split(_words(seeds))[:2])
    return cast("npt.NDArray[np.float64]", _unit(x0, x1))


def _unit(x0: Any, x1: Any) -> Any:
    """27 bits of one word and 26 of the other, as Python's own generator and numpy's take them."""
    return ((x0 >> 5) * 67108864.0 + (x1 >> 6)) * (1.0 / 9007199254740992.0)


def _words(values: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([value & 0xFFFFFFFFFFFFFFFF for value in values], np.uint64)


def _split(value: Any) -> Words:
    return value & _WORD, (value >> 32) & _WORD, 0, 0


def randn(seed: int, counters: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Standard normals by *seed* (64-bit) and *counters* (32-bit), the numbers of Triton's `randn`.

    The first two words become uniforms in [0, 1) by folding their sign away, and Box-Muller makes a normal of them.
    """
    wide = np.asarray(counters, np.uint64)
    x0, x1, _, _ = philox((wide & _WORD, wide * 0, wide * 0, wide * 0), _split(seed)[:2])
    u1, u2 = _folded(x0), _folded(x1)
    radius = np.sqrt(-2.0 * np.log(np.maximum(u1, np.float32(1e-7))))
    return cast("npt.NDArray[np.float32]", (radius * np.cos(np.float32(2 * np.pi) * u2)).astype(np.float32))


def _folded(word: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    signed = word.astype(np.uint32).view(np.int32)
    return np.where(signed < 0, ~signed, signed).astype(np.float32) * np.float32(4.6566127342e-10)
