"""Our attention function, as transformers' attention interface calls it: paged keys and values of many sequences.

Query heads that share a key head are folded into the query's length, so that one product serves the group; with a
causal mask they become heads over keys of stride zero. Scores, softmax and sums follow Vaswani et al. 2017; the soft
cap is Gemma 2's ``cap * tanh(score / cap)``; a sink (GPT-OSS) is a score without a value in each row's softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from bakehouse.engine.errors import StepFailed
from bakehouse.engine.runner.torch import probe
from bakehouse.engine.runner.torch.batch import Batch, Keys, Work
from bakehouse.engine.runner.torch.kv import KVShape
from bakehouse.engine.runner.torch.native import Native

#: Under this name transformers knows our function. No mask is registered for it at run time.
NAME = "bakehouse"

#: Keywords that layers hand on and that change nothing for us.
_IDLE = frozenset(
    {
        "cache_position",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


class Now:
    """The step that the layers of one model are in."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self._angles: tuple[Tensor, Tensor] | None = None
        self._rotation: tuple[Tensor, Tensor] | None = None
        #: What stand-ins of layers share of the step, by name.
        self.shared: dict[object, Any] = {}

    def rotation(self, angles: tuple[Tensor, Tensor], dim: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines ``[rows, dim]`` in float32, made once for all layers that are given the same; None
        where they are not of the whole head."""
        if self._angles is None or self._angles[0] is not angles[0]:
            if angles[0].shape[-1] != dim or angles[0].dim() != 3:
                return None
            self._rotation = (angles[0][0].float().contiguous(), angles[1][0].float().contiguous())
            self._angles = angles
        return self._rotation

    def clear(self) -> None:
        self.batch = self._angles = self._rotation = None
        self.shared.clear()


class LayerKV:
    """What one attention layer must know: its rows of the pool, its shape, its window, and the step."""

    def __init__(self, shape: KVShape, window: int | None, now: Now) -> None:
        self.shape = shape
        self.window = window
        self.now = now
        self.native: Native | None = None
        self.pool: Tensor | None = None

    def write(self, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """``[rows, heads, dim]`` each, to *slots*."""
        assert self.pool is not None
        width = self.shape.key_width
        self.pool[:, :width].index_copy_(0, slots, key.flatten(1))
        self.pool[:, width : self.shape.width].index_copy_(0, slots, value.flatten(1))

    def read(self, keys: Keys, page_size: int) -> tuple[Tensor, Tensor]:
        """Keys and values as ``[sequences, length, heads, dim]``."""
        assert self.pool is not None
        if keys.run is not None:
            rows = self.pool[keys.run[0] : keys.run[1]][None]
        else:
            assert keys.pages is not None
            pages = self.pool.view(-1, page_size * self.shape.stride)
            gathered = pages.index_select(0, keys.pages)
            rows = gathered.view(keys.sequences, -1, self.shape.stride)[:, : keys.length]
        width, shape = self.shape.key_width, (*rows.shape[:2], self.shape.heads, -1)
        return rows[..., :width].view(shape), rows[..., width : self.shape.width].view(shape)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers. ``query`` is ``[1, heads, rows, dim]``, and so are the others.

    Masks and windows are the step's own; the arguments for them were compared with ours when the model was loaded.
    Raises `StepFailed` for a keyword whose meaning is not known.
    """
    unknown = [name for name, given in rest.items() if given is not None and name not in _IDLE]
    recorder = probe.current()
    if dropout:
        unknown.append("dropout")
    if recorder is not None:
        return recorder.attend(module, query, key, value, attention_mask, unknown)
    if unknown:
        raise StepFailed(f"{type(module).__name__} gives its attention arguments that are not known: {unknown}")
    layer: LayerKV = module.__dict__["paged"]
    batch = layer.now.batch
    assert batch is not None
    q, k, v = (given[0].transpose(0, 1) for given in (query, key, value))
    return paged(layer, batch, q, k, v, scaling, softcap, s_aux)[None], None


def paged(
    layer: LayerKV,
    batch: Batch,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Write the new keys and values, then attend. All are ``[rows, heads, dim]``, and so is the answer."""
    if batch.on_device is not None:
        batch.on_device.write(layer, key, value)
    else:
        layer.write(batch.slots, key, value)
    scale = query.shape[2] ** -0.5 if scaling is None else scaling
    return over_pool(layer, batch, query, Heads(scale, softcap, sinks))


def over_pool(layer: LayerKV, batch: Batch, query: Tensor, heads: Heads) -> Tensor:
    """Attention of ``[rows, heads, dim]`` over what is written."""
    assert layer.pool is not None
    if batch.on_device is not None:
        return batch.on_device.attend(layer, query, heads)
    works, page_size = batch.works(layer.window), batch.page_size
    reads = batch.reads(layer.window)
    if reads is None and not batch.prompts and len(works) == 1 and isinstance(works[0].rows, range):
        return _run(works[0], query, *layer.read(works[0].keys, page_size), heads)
    out = query.new_empty(query.shape[0], query.shape[1], layer.shape.value_dim)
    query = query.contiguous()
    sinks = None if heads.sinks is None else heads.sinks.float()
    if reads is not None:
        assert layer.native is not None
        layer.native.decode(
            query,
            layer.pool,
            out,
            layer.shape.heads,
            page_size,
            reads.tensors,
            heads.scale,
            heads.softcap or 0.0,
            sinks,
        )
    for prompt in batch.prompts:
        assert layer.native is not None
        here = slice(prompt.start, prompt.start + prompt.count)
        layer.native.prefill(
            query[here],
            layer.pool,
            out[here],
            layer.shape.heads,
            page_size,
            prompt.pages,
            prompt.history,
            layer.window,
            heads.scale,
            heads.softcap or 0.0,
            sinks,
        )
    for work in works:
        keys, values = layer.read(work.keys, page_size)
        if isinstance(work.rows, range):
            here = slice(work.rows.start, work.rows.stop)
            out[here] = _run(work, query[here], keys, values, heads)
        else:
            out.index_copy_(0, work.rows, _run(work, query.index_select(0, work.rows), keys, values, heads))
    return out


@dataclass(slots=True)
class Heads:
    """What a layer does to its scores; *sinks* is one per query head."""

    scale: float
    softcap: float | None
    sinks: Tensor | None


def _run(work: Work, query: Tensor, keys: Tensor, values: Tensor, heads: Heads) -> Tensor:
    """*query* ``[rows, heads, dim]`` over *keys* and *values* ``[sequences, length, key heads, dim]``."""
    rows, query_heads, width = query.shape
    sequences, _, key_heads, _ = keys.shape
    group = query_heads // key_heads
    sinks = None if heads.sinks is None else heads.sinks.view(1, key_heads, group)
    if sequences == rows:  # one row each: [sequences, key heads, group, dim]
        q = query.reshape(rows, key_heads, group, width)
        mask = None if work.mask is None else work.mask[:, None]
        out = _scores(q, keys.transpose(1, 2), values.transpose(1, 2), mask, False, heads, sinks)
    else:  # one sequence: [key heads, group, rows, dim], keys repeated over the group by stride 0
        q = query.reshape(rows, key_heads, group, width).permute(1, 2, 0, 3)
        k = keys[0].transpose(0, 1)[:, None].expand(-1, group, -1, -1)
        v = values[0].transpose(0, 1)[:, None].expand(-1, group, -1, -1)
        sinks = None if sinks is None else sinks.view(key_heads, group, 1)
        mask = None if work.mask is None else work.mask[None]
        out = _scores(q, k, v, mask, work.causal, heads, sinks).permute(2, 0, 1, 3)
    if work.blind:
        out = out.nan_to_num(0.0)
    return out.reshape(rows, query_heads, -1)


def _scores(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, heads: Heads, sinks: Tensor | None
) -> Tensor:
    """Attention proper, all ``[sequences, heads, length, dim]``; *sinks* broadcasts over all but the last."""
    if heads.softcap is not None or (sinks is not None and q.device.type != "cpu"):
        return _explicit(q, k, v, mask, causal, heads, sinks)
    if q.device.type == "cpu" and q.shape[3] == v.shape[3]:
        out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=heads.scale
        )
        if sinks is not None:
            out = out * torch.sigmoid(sums - sinks.float())[..., None].to(out.dtype)
        return out  # type: ignore[no-any-return]
    if sinks is not None:
        return _explicit(q, k, v, mask, causal, heads, sinks)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=heads.scale)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, heads: Heads, sinks: Tensor | None
) -> Tensor:
    """The formula as it stands, in float32, for what the fused kernels do not have."""
    scores = (q @ k.transpose(2, 3)).float() * heads.scale
    if heads.softcap is not None:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    if causal:
        future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu_(1)
        scores = scores.masked_fill(future, float("-inf"))
    if mask is not None:
        scores = scores + mask
    if sinks is not None:
        column = sinks.float()[..., None].expand(*scores.shape[:3], 1)
        weights = torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    return weights.to(v.dtype) @ v


def register() -> None:
    """Make our function and our mask known to transformers. May be repeated."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)


def _mask(*, mask_function: probe.MaskFunction, q_length: int, **_: Any) -> Tensor | None:
    """Asked for while a model is probed only: a step gives the model a mask of four dimensions, which it hands on."""
    recorder = probe.current()
    return None if recorder is None else recorder.mask(mask_function, q_length)
