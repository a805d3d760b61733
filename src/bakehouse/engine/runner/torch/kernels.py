"""What multiplies by a weight: plain, packed for oneDNN, or quantised. Chosen once, when a model is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from bakehouse.engine.runner.torch.huge import in_huge_pages
from bakehouse.engine.runner.torch.native import KINDS, Native


class Kernel(ABC):
    """``x W^T + b`` for flat rows. Immutable; results of a row do not depend on the other rows beyond rounding."""

    in_features: int

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """``[rows, in]`` to a new tensor ``[rows, out]`` of the same dtype."""


class Plain(Kernel):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.in_features = weight.shape[1]
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Packed(Kernel):
    """bf16 in the blocked layout that oneDNN would otherwise make anew in every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.in_features = weight.shape[1]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return result


class Int8(Kernel):
    """Weights as int8 with one scale per output: symmetric, ``scale = max|w| / 127``."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.in_features = weight.shape[1]
        scale = weight.float().abs().amax(dim=1).clamp_min(1e-8) / 127
        self.weight = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.scale = scale.to(weight.dtype)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scale)
        return y if self.bias is None else y.add_(self.bias)


class Int4(Kernel):
    """Weights as unsigned 4 bits with a scale and a zero point per output and group of 32 inputs."""

    group = 32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.in_features = weight.shape[1]
        outputs = weight.shape[0]
        groups = weight.float().view(outputs, -1, self.group)
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        scale = ((high - low) / 15).clamp_min(1e-6)
        values = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.int32)
        self.weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.view(outputs, -1), 1)
        # The kernel computes (value - 8) * scale + zero.
        zeros = low + scale * 8
        self.scales = torch.stack([scale.t(), zeros.t()], dim=2).contiguous().to(weight.dtype)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.weight, self.group, self.scales)
        return y if self.bias is None else y.add_(self.bias)


class Panels(Kernel):
    """Our own kernel: panels of 32 outputs, streamed once for any number of rows. bf16, int8 or int4.

    int8: one scale per output, ``max|w| / 127``. int4: values -8..7 and one scale per output and 32 inputs, chosen so
    that the largest weight of the group is exact. Scales are bf16.
    """

    group = 32

    def __init__(self, native: Native, kind: str, weight: Tensor, bias: Tensor | None) -> None:
        outputs, self.in_features = weight.shape
        self._native = native
        self.kind = KINDS[kind]
        self._outputs = outputs
        self.scales: Tensor | None = None
        if kind == "int8":
            scale = _safe(weight.float().abs().amax(dim=1) / 127)
            values = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            self.weight, self.scales = _panels(values), _padded(scale.to(torch.bfloat16))
        elif kind == "int4":
            groups = weight.float().view(outputs, -1, self.group)
            scale = _safe(groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))[..., 0] / -8)
            values = ((groups / scale[..., None]).round().clamp(-8, 7) + 8).to(torch.uint8)
            paired = _panels(values.view(outputs, -1)).view(-1, self.in_features // 2, 64)
            self.weight = in_huge_pages(paired[..., :32] | paired[..., 32:] << 4)
            self.scales = _padded(scale.to(torch.bfloat16)).view(-1, 32, scale.shape[1]).transpose(1, 2).contiguous()
        else:
            self.weight = _panels(weight)
        self.bias = None if bias is None else _padded(bias.float())

    def __call__(self, x: Tensor) -> Tensor:
        return self._native.product(self.kind, x.contiguous(), self.weight, self.scales, self.bias, self._outputs)


def _safe(scale: Tensor) -> Tensor:
    """As the kernel will read it, and nowhere zero."""
    return scale.where(scale.abs() > 1e-20, 1.0).to(torch.bfloat16).float()


def _padded(values: Tensor) -> Tensor:
    missing = -values.shape[0] % 32
    return functional.pad(values, (0, 0) * (values.dim() - 1) + (0, missing)) if missing else values.contiguous()


def _panels(weight: Tensor) -> Tensor:
    """``[outputs, inputs]`` as ``[outputs / 32, inputs / 2, 32, 2]``, the last panel filled up with zeros."""
    pairs = torch.int32 if weight.itemsize == 2 else torch.int16  # two inputs move as one
    panels = _padded(weight).view(pairs).view(-1, 32, weight.shape[1] // 2).transpose(1, 2).contiguous()
    return in_huge_pages(panels.view(weight.dtype))


def make_kernel(weight: Tensor, bias: Tensor | None, quantise: str | None, native: Native | None) -> Kernel:
    """The kernel for *weight* ``[out, in]``. *quantise* is of the CPU only.

    int4 needs inputs in whole groups of 32; a weight that is not falls back to int8.
    """
    if quantise == "int4" and weight.shape[1] % Panels.group:
        quantise = "int8"
    if weight.dtype == torch.bfloat16 and weight.device.type == "cpu":
        if native is not None and native.multiplies and weight.shape[1] % 2 == 0:
            return Panels(native, quantise or "bf16", weight, bias)
        if quantise is None and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return Packed(weight, bias)
    if quantise == "int4" and weight.shape[0] % 16 == 0:
        return Int4(weight, bias)
    return Plain(weight, bias) if quantise is None else Int8(weight, bias)
