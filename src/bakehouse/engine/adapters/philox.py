"""Standard normals from a counter: Philox4x32 with 10 rounds and Box-Muller, with the integers of Triton's `randn`.

Element n of stream *key* depends on (key, n) alone, so that noise need not be kept: it is made again from its seed.
Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Triton takes the first two output words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
#: Counters worked on at once by a processor, so that a round's numbers stay in its cache.
_CHUNK = 1 << 14
#: Triton's step between two uniforms, just under 2**-31, and its smallest argument of the logarithm.
_UNIT = 4.6566127342e-10
_SMALLEST = 1e-7


def words(key: int, counters: Tensor) -> tuple[Tensor, Tensor]:
    """The first two 32-bit words for each counter (int64, below 2**32), as int64. Only 32 bits of *key* count."""
    k0, k1 = key & _MASK, 0
    c0, c2 = counters, torch.zeros_like(counters)
    c1, c3 = c2, c2
    for _ in range(_ROUNDS):
        # Products wrap in 64 bits. Of c1 and c3 only the low halves count, and the mask after the next xor takes them.
        even, odd = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (odd >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (even >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = odd, even
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK


def _uniform(word: Tensor) -> Tensor:
    """Triton's uniform: the word read as signed, folded to be non-negative. float32 in [0, 1)."""
    return torch.minimum(word, _MASK - word).to(torch.float32).mul_(_UNIT)


def normals_at(key: int, counters: Tensor) -> Tensor:
    """Standard normals, float32, of the counters' shape."""
    first, second = words(key, counters)
    radius = _uniform(first).clamp_(min=_SMALLEST).log_().mul_(-2).sqrt_()
    return radius.mul_(_uniform(second).mul_(2 * math.pi).cos_())


def normals(key: int, rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Z of shape [rows, columns], float32: element (i, j) has counter ``i * columns + j``."""
    flat = torch.empty(rows * columns, dtype=torch.float32, device=device)
    chunk = _CHUNK if flat.device.type == "cpu" else max(1, flat.numel())
    for start in range(0, flat.numel(), chunk):
        stop = min(start + chunk, flat.numel())
        flat[start:stop] = normals_at(key, torch.arange(start, stop, dtype=torch.int64, device=device))
    return flat.view(rows, columns)
