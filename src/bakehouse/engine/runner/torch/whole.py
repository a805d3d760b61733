"""A decoder layer as one native call, where all its rows stand alone and nothing is to be added on the way.

The same kernels in the same order as `fuse.Layer` calls them one by one: what is saved is the way between them.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from bakehouse.engine.runner.torch.batch import Batch
from bakehouse.engine.runner.torch.kernels import Panels
from bakehouse.engine.runner.torch.linear import Linear
from bakehouse.engine.runner.torch.native import Native, pointer

_I, _P, _D = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double


class _Product(ctypes.Structure):
    _fields_ = (("kind", _I), ("inputs", _I), ("outputs", _I), ("weight", _P), ("scales", _P), ("bias", _P))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in ("qkv", "o", "gate_up", "down")),
        *((name, _P) for name in ("before", "between", "q_norm", "k_norm", "pool")),
        *((name, _I) for name in ("stride", "q_heads", "kv_heads", "dim", "act")),
        *((name, _D) for name in ("before_eps", "between_eps", "head_eps", "scale")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("rows", "page_size", "threads")),
        *((name, _P) for name in ("slots", "order", "starts", "firsts", "stops", "pages", "cos", "sin")),
        *((name, _P) for name in ("normed", "qkv", "q", "attended", "gates", "inner")),
    )


class Whole:
    """One layer's constants. They are read where they lie, so the tensors given are kept."""

    def __init__(
        self,
        native: Native,
        linears: tuple[Linear, Linear, Linear, Linear],
        norms: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
        eps: tuple[float, float, float],
        heads: tuple[int, int, int],
        act: int,
        scale: float,
    ) -> None:
        self._native = native
        self._linears = linears
        self._kept = norms
        qkv, o, gate_up, down = (_product(linear) for linear in linears)
        before, between, q_norm, k_norm = (pointer(norm) for norm in norms)
        self._layer = _Layer(qkv, o, gate_up, down, before, between, q_norm, k_norm, None, 0, *heads, act, *eps, scale)

    @staticmethod
    def fits(linears: tuple[Linear, ...]) -> bool:
        """Are all of them our own products?"""
        return all(isinstance(linear.kernel, Panels) for linear in linears)

    def ready(self) -> bool:
        """Not while an adapter is to be added to a product."""
        return all(linear.adapter is None for linear in self._linears)

    def run(self, x: Tensor, pool: Tensor, step: Steps) -> None:
        """*x* ``[rows, hidden]``, bf16, becomes what the layer makes of it."""
        self._layer.pool = pool.data_ptr()
        self._layer.stride = pool.shape[1]
        self._native.layer(ctypes.byref(self._layer), step.reference, x.data_ptr())


def _product(linear: Linear) -> _Product:
    kernel = linear.kernel
    assert isinstance(kernel, Panels)
    return _Product(
        kernel.kind,
        linear.in_features,
        linear.out_features,
        kernel.weight.data_ptr(),
        pointer(kernel.scales),
        pointer(kernel.bias),
    )


class Steps:
    """What the layers of one window read of a step, and the memory they work in."""

    def __init__(
        self, batch: Batch, window: int | None, angles: tuple[Tensor, Tensor], widths: tuple[int, ...]
    ) -> None:
        reads = batch.reads(window)
        assert reads is not None
        rows = angles[0].shape[0]
        order, pages, starts, firsts, stops = reads.tensors
        space = [torch.empty(rows * width, dtype=torch.bfloat16) for width in widths]
        given = (batch.slots, order, starts, firsts, stops, pages, *angles)
        self._kept = (space, given)
        self._step = _Step(rows, batch.page_size, torch.get_num_threads(), *map(pointer, given), *map(pointer, space))
        self.reference = ctypes.byref(self._step)

    @staticmethod
    def fits(batch: Batch, window: int | None) -> bool:
        """Does every row of the step stand alone?"""
        reads = batch.reads(window)
        return reads is not None and reads.all_rows
