"""What multiplies by a weight: plain, packed for oneDNN, or quantised. Chosen once, when a model is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional


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


def make_kernel(weight: Tensor, bias: Tensor | None, quantise: str | None) -> Kernel:
    """The kernel for *weight* ``[out, in]``. *quantise* is of the CPU only.

    int4 needs inputs in whole groups of 32 and outputs in whole blocks of 16; a weight that is not falls back to int8.
    """
    if quantise == "int4" and weight.shape[1] % Int4.group == 0 and weight.shape[0] % 16 == 0:
        return Int4(weight, bias)
    if quantise is not None:
        return Int8(weight, bias)
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Packed(weight, bias)
    return Plain(weight, bias)
