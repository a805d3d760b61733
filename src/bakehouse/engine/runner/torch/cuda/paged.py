"""Attention over the KV pool on CUDA, by the Triton kernels in `kernels`.

Triton and not flex_attention: a step's pages, lengths and masks are plain tensors for a kernel of our own, so no block
mask is built and nothing is compiled anew from step to step, a CUDA graph can hold it, and Triton's interpreter can
check every feature on a CPU. Which of the two is faster has not been measured, nor has any block size here.

Not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from bakehouse.engine.runner.torch.attention import Heads, LayerKV
from bakehouse.engine.runner.torch.cuda import kernels
from bakehouse.engine.runner.torch.cuda.table import Mask, Table, Tiles

#: Wider heads would not leave a block of keys and one of values room in a processor's shared memory.
WIDEST = 256
#: Keys of a row with few neighbours are cut into parts of at least so many tokens, and into at most so many parts.
PART_TOKENS = 256
MOST_PARTS = 16
#: Folded rows (rows times query heads of a key head) of one tile, where a segment has many rows.
MANY_ROWS = 64
#: The least that the device's matrix units take.
LEAST = 16
WARPS, STAGES = 4, 2


class Blocks(NamedTuple):
    """Sizes of what a program holds: folded rows, keys, and the padded widths of keys and values."""

    rows: int
    keys: int
    key: int
    value: int


class PagedStep:
    """One step's attention. Runs anywhere that Triton does, in its interpreter too."""

    def __init__(self, table: Table, page_size: int) -> None:
        self._table = table
        self._page_size = page_size

    def write(self, layer: LayerKV, key: Tensor, value: Tensor) -> None:
        """``[rows, heads, dim]`` each, to the step's slots."""
        assert layer.pool is not None
        shape = layer.shape
        key, value = _dense(key), _dense(value)
        kernels.write_rows[(key.shape[0], shape.heads)](
            key,
            value,
            self._table.slots,
            layer.pool,
            key.stride(0),
            key.stride(1),
            value.stride(0),
            value.stride(1),
            HEADS=shape.heads,
            KEY_DIM=shape.key_dim,
            VALUE_DIM=shape.value_dim,
            STRIDE=shape.stride,
            KEY_BLOCK=_power(shape.key_dim),
            VALUE_BLOCK=_power(shape.value_dim),
        )

    def attend(self, layer: LayerKV, query: Tensor, heads: Heads) -> Tensor:
        """*query* ``[rows, heads, dim]`` over what is written; the answer is ``[rows, heads, value dim]``."""
        group = query.shape[1] // layer.shape.heads
        query = _dense(query)
        out = query.new_empty(query.shape[0], query.shape[1], layer.shape.value_dim)
        mask = self._table.mask(layer.window)
        tile = max(LEAST // group, 1)
        if (few := self._table.few(tile)) is not None:
            parts = min(_power(-(-few.longest // PART_TOKENS), least=1), MOST_PARTS)
            self._launch(layer, query, out, heads, few, mask, tile, parts)
        tile = max(MANY_ROWS // group, 1)
        if (many := self._table.many(tile)) is not None:
            self._launch(layer, query, out, heads, many, mask, tile, 1)
        return out

    def _launch(
        self,
        layer: LayerKV,
        query: Tensor,
        out: Tensor,
        heads: Heads,
        tiles: Tiles,
        mask: Mask | None,
        tile: int,
        parts: int,
    ) -> None:
        assert layer.pool is not None
        shape, rows, query_heads = layer.shape, query.shape[0], query.shape[1]
        folded = tile * query_heads // shape.heads
        sizes = blocks(shape.key_dim, shape.value_dim, layer.pool.element_size(), folded)
        cut = parts > 1
        partial = out.new_empty(rows * query_heads * parts * shape.value_dim, dtype=torch.float32) if cut else out
        sums = out.new_empty(rows * query_heads * parts * 2, dtype=torch.float32) if cut else out
        sinks = query if heads.sinks is None else heads.sinks
        kernels.attend_rows[(len(tiles.segments), shape.heads, parts)](
            query,
            layer.pool,
            out,
            partial,
            sums,
            sinks,
            self._table.pages,
            self._table.segments,
            self._table.segments.shape[1],
            tiles.segments,
            tiles.firsts,
            self._table.pages if mask is None else mask.seen,
            self._table.pages if mask is None else mask.starts,
            query.stride(0),
            query.stride(1),
            heads.scale,
            heads.softcap or 1.0,
            PAGE=self._page_size,
            HEADS=shape.heads,
            GROUP=query_heads // shape.heads,
            KEY_DIM=shape.key_dim,
            VALUE_DIM=shape.value_dim,
            STRIDE=shape.stride,
            WINDOW=layer.window or 0,
            HAS_CAP=heads.softcap is not None,
            HAS_SINKS=heads.sinks is not None,
            HAS_MASK=mask is not None,
            TILE=tile,
            PARTS=parts,
            PART_TOKENS=PART_TOKENS,
            MOST_PARTS=MOST_PARTS,
            ROWS_BLOCK=sizes.rows,
            KEYS_BLOCK=sizes.keys,
            KEY_BLOCK=sizes.key,
            VALUE_BLOCK=sizes.value,
            WIDE=kernels.INTERPRETED,
            num_warps=WARPS,
            num_stages=STAGES,
        )
        if cut:
            kernels.merge_parts[(len(tiles.rows), query_heads)](
                partial,
                sums,
                tiles.rows,
                sinks,
                out,
                VALUE_DIM=shape.value_dim,
                HEADS=query_heads,
                HAS_SINKS=heads.sinks is not None,
                PARTS=parts,
                VALUE_BLOCK=sizes.value,
            )


def fits(layers: Sequence[LayerKV]) -> bool:
    """Can the kernels do every one of *layers*?"""
    return all(max(layer.shape.key_dim, layer.shape.value_dim) <= WIDEST for layer in layers)


def blocks(key_dim: int, value_dim: int, itemsize: int, folded: int) -> Blocks:
    """For heads of these widths, elements of so many bytes and so many folded rows."""
    key, value = _power(key_dim), _power(value_dim)
    # 16 KiB of keys at most, and as much of values; two of each are on their way at once, beside the queries.
    keys = 16384 // (max(key, value) * itemsize)
    return Blocks(_power(folded), max(min(keys, 64), LEAST), key, value)


def _power(number: int, least: int = LEAST) -> int:
    return max(int(triton.next_power_of_2(number)), least)


def _dense(tensor: Tensor) -> Tensor:
    """With elements of a head beside each other; rows and heads may lie anywhere."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
