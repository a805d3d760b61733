"""The KV pool: one tensor per layer, a row per slot, keys and values of a token beside each other.

Row ``page * page_size + offset`` of a layer's tensor is ``[keys of all heads | values of all heads]``. So a run of
consecutive pages is a view, whole pages gather as rows, and a token is written with one row index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bakehouse.engine.errors import OutOfPages
from bakehouse.engine.memory import free_bytes
from bakehouse.engine.plan.step import Copy
from bakehouse.engine.runner.torch.huge import zeros

_PADDING = 32


@dataclass(frozen=True, slots=True)
class KVShape:
    """Of one layer: heads and the width of one head's key and value, in elements."""

    heads: int
    key_dim: int
    value_dim: int

    @property
    def key_width(self) -> int:
        return self.heads * self.key_dim

    @property
    def width(self) -> int:
        return self.heads * (self.key_dim + self.value_dim)

    @property
    def stride(self) -> int:
        """Elements from one token to the next: off the powers of two, which would fall into the same cache sets."""
        return self.width + (_PADDING if self.width % 256 == 0 else 0)


class KVPool:
    """Pages of every layer on one device."""

    def __init__(
        self, shapes: Sequence[KVShape], pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.page_size = page_size
        self.pages = pages
        needed = sum(shape.stride for shape in shapes) * pages * page_size * dtype.itemsize
        free = free_bytes(str(device))
        refusal = OutOfPages(
            f"{pages} pages of {page_size} tokens need {needed / 2**20:.0f} MiB on {device}, which has "
            f"{free / 2**20:.0f} MiB to give; give a smaller kv budget"
        )
        if needed > free:  # asked, not tried: memory that nobody has touched yet is always granted
            raise refusal
        try:
            self.layers = [zeros(pages * page_size, shape.stride, dtype, device) for shape in shapes]
        except (RuntimeError, MemoryError, OSError) as failed:
            raise refusal from failed

    def copy(self, copies: Sequence[Copy]) -> None:
        """Carry *copies* out in their order; a later one may read what an earlier one wrote."""
        for wave in _waves(copies):
            source, target = (self._rows([(pair[side], pair[2]) for pair in wave]) for side in (0, 1))
            for layer in self.layers:
                layer.index_copy_(0, target, layer.index_select(0, source))

    def _rows(self, parts: Sequence[tuple[int, int]]) -> Tensor:
        rows = [page * self.page_size + offset for page, tokens in parts for offset in range(tokens)]
        return torch.tensor(rows, dtype=torch.long, device=self.layers[0].device)


def _waves(copies: Sequence[Copy]) -> list[list[Copy]]:
    """*copies* split in order, so that within one part no page is both written and touched again."""
    waves: list[list[Copy]] = []
    written: set[int] = set()
    for copy in copies:
        if not waves or copy.source in written or copy.target in written:
            waves.append([])
            written = set()
        waves[-1].append(copy)
        written.add(copy.target)
    return waves
