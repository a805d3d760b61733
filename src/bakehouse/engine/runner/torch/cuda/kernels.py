# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""Triton kernels of paged attention. See `paged` for what they are given; importing this imports triton.

One program does a tile of rows of one segment for the query heads of one key head: heads that share a key head are
folded into the rows, so that keys are read once for all of them. Softmax is summed up block by block (Milakov and
Gimelshein 2018; Dao et al. 2022, FlashAttention), in float32 and base 2. Keys of a row may be cut into parts that run
beside each other (Dao et al. 2023, Flash-Decoding); how many parts hangs on the row's own length alone, so results do
not depend on what else is in the batch.
"""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]


@triton.jit
def write_rows(
    keys,
    values,
    slots,
    pool,
    key_row,
    key_head,
    value_row,
    value_head,
    HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    STRIDE: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
):
    """Program (row, head) copies one head's key and value to the row's slot. A slot below zero is written nowhere."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        at = tl.arange(0, KEY_BLOCK)
        key = tl.load(keys + row * key_row + head * key_head + at, mask=at < KEY_DIM)
        tl.store(pool + slot * STRIDE + head * KEY_DIM + at, key, mask=at < KEY_DIM)
        at = tl.arange(0, VALUE_BLOCK)
        value = tl.load(values + row * value_row + head * value_head + at, mask=at < VALUE_DIM)
        tl.store(pool + slot * STRIDE + HEADS * KEY_DIM + head * VALUE_DIM + at, value, mask=at < VALUE_DIM)


@triton.jit
def _product(a, b, WIDE: tl.constexpr):
    """In float32. Of float32 values without rounding them first; ``WIDE``: of others as if they were such."""
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")


# Not compiled anew for one segment, or for multiples of 16.
@triton.jit(do_not_specialize=["segment_count"])
def attend_rows(
    query,
    pool,
    out,
    partial,
    sums,
    sinks,
    pages,
    segments,
    segment_count,
    tile_segments,
    tile_firsts,
    mask,
    mask_starts,
    query_row,
    query_head,
    scale,
    softcap,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    STRIDE: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    PART_TOKENS: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    ROWS_BLOCK: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Program (tile, key head, part): ``TILE`` rows of a segment over one part of the keys that they see.

    With one part the answer goes to ``out``; with more, unnormalised sums go to ``partial`` and each row's greatest
    score and weight to ``sums``, for `merge_parts`.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    tile = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.program_id(2)
    segment = tl.load(tile_segments + tile)
    first = tl.load(tile_firsts + tile)
    start = tl.load(segments + segment)
    count = tl.load(segments + segment_count + segment)
    history = tl.load(segments + 2 * segment_count + segment)
    held = pages + tl.load(segments + 3 * segment_count + segment)

    folded = tl.arange(0, ROWS_BLOCK)
    row = first + folded // GROUP
    query_index = head * GROUP + folded % GROUP
    live = (folded < TILE * GROUP) & (row < count)
    slot = history + row
    width = tl.arange(0, KEY_BLOCK)
    q = tl.load(
        query + (start + row)[:, None] * query_row + query_index[:, None] * query_head + width[None, :],
        mask=live[:, None] & (width < KEY_DIM)[None, :],
        other=0.0,
    )

    # The slots that any row of the tile may see.
    low = tl.full((), 0, tl.int64)
    high = history + tl.minimum(first + TILE, count)
    if WINDOW > 0:
        low = tl.maximum(history + first + 1 - WINDOW, 0)
    masked = -1
    described = low  # slots below this one have a mask
    if HAS_MASK:
        masked = tl.load(mask_starts + segment)
        described = tl.where(masked >= 0, history + count, 0)
        low = tl.where(masked >= 0, 0, low)
        high = tl.where(masked >= 0, history + count, high)
    parts = tl.minimum(tl.cdiv(high - low, PART_TOKENS), MOST_PARTS)
    each = tl.cdiv(tl.cdiv(high - low, parts), KEYS_BLOCK) * KEYS_BLOCK
    if PARTS == 1:  # no longer than one part, or not to be cut
        each = high - low
    begin = low + part * each
    end = tl.minimum(begin + each, high)

    best = tl.full((ROWS_BLOCK,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS_BLOCK,), tl.float32)
    depth = tl.arange(0, VALUE_BLOCK)
    total = tl.zeros((ROWS_BLOCK, VALUE_BLOCK), tl.float32)
    for block in range(begin, end, KEYS_BLOCK):
        at = block + tl.arange(0, KEYS_BLOCK)
        inside = at < end
        page = tl.load(held + at // PAGE, mask=inside, other=0)
        place = (page * PAGE + at % PAGE) * STRIDE
        key = tl.load(
            pool + place[None, :] + head * KEY_DIM + width[:, None],
            mask=inside[None, :] & (width < KEY_DIM)[:, None],
            other=0.0,
        )
        scores = _product(q.to(key.dtype), key, WIDE) * scale
        if HAS_CAP:  # cap * tanh(score / cap)
            scores = softcap * (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0))
        seen = at[None, :] <= slot[:, None]
        if WINDOW > 0:
            seen = seen & (at[None, :] > slot[:, None] - WINDOW)
        if HAS_MASK:
            given = tl.load(
                mask + masked + row[:, None] * (history + count) + at[None, :],
                mask=live[:, None] & (inside & (at < described))[None, :],
                other=0,
            )
            seen = ((at < described)[None, :] & (given != 0)) | ((at >= described)[None, :] & seen)
        scores = tl.where(seen & inside[None, :] & live[:, None], scores * LOG2E, float("-inf"))
        greatest = tl.maximum(best, tl.max(scores, 1))
        # A row that has seen nothing yet has no greatest score, and minus infinity from itself is not a number.
        base = tl.where(greatest == float("-inf"), 0.0, greatest)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(best - base)
        weight = weight * shrink + tl.sum(weights, 1)
        value = tl.load(
            pool + place[:, None] + HEADS * KEY_DIM + head * VALUE_DIM + depth[None, :],
            mask=inside[:, None] & (depth < VALUE_DIM)[None, :],
            other=0.0,
        )
        total = total * shrink[:, None] + _product(weights.to(value.dtype), value, WIDE)
        best = greatest

    index = (start + row) * (HEADS * GROUP) + query_index
    stored = live[:, None] & (depth < VALUE_DIM)[None, :]
    if PARTS == 1:
        if HAS_SINKS:
            sink = tl.load(sinks + query_index, mask=live, other=0.0).to(tl.float32) * LOG2E
            weight += tl.exp2(sink - tl.where(best == float("-inf"), 0.0, best))
        answer = total / tl.where(weight > 0, weight, 1.0)[:, None]  # a row that sees nothing attends to nothing
        tl.store(out + index[:, None] * VALUE_DIM + depth[None, :], answer.to(out.dtype.element_ty), mask=stored)
    else:
        index = index * PARTS + part
        tl.store(partial + index[:, None] * VALUE_DIM + depth[None, :], total, mask=stored)
        tl.store(sums + 2 * index, best, mask=live)
        tl.store(sums + 2 * index + 1, weight, mask=live)


@triton.jit
def merge_parts(
    partial,
    sums,
    rows,
    sinks,
    out,
    VALUE_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PARTS: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
):
    """Program (number of the row in ``rows``, query head): its parts, each weighed by its greatest score."""
    LOG2E: tl.constexpr = 1.4426950408889634
    head = tl.program_id(1)
    index = tl.load(rows + tl.program_id(0)) * HEADS + head
    part = tl.arange(0, PARTS)
    depth = tl.arange(0, VALUE_BLOCK)
    best = tl.load(sums + 2 * (index * PARTS + part))
    weight = tl.load(sums + 2 * (index * PARTS + part) + 1)
    greatest = tl.max(best, 0)
    greatest = tl.where(greatest == float("-inf"), 0.0, greatest)
    share = tl.exp2(best - greatest)
    some = tl.load(
        partial + (index * PARTS + part)[:, None] * VALUE_DIM + depth[None, :],
        mask=(best > float("-inf"))[:, None] & (depth < VALUE_DIM)[None, :],
        other=0.0,
    )
    total = tl.sum(some * share[:, None], 0)
    whole = tl.sum(weight * share, 0)
    if HAS_SINKS:
        whole += tl.exp2(tl.load(sinks + head).to(tl.float32) * LOG2E - greatest)
    answer = total / tl.where(whole > 0, whole, 1.0)
    tl.store(out + index * VALUE_DIM + depth, answer.to(out.dtype.element_ty), mask=depth < VALUE_DIM)


#: The interpreter has no products of bfloat16.
INTERPRETED = not isinstance(attend_rows, triton.JITFunction)
