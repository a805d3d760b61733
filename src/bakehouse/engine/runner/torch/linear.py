"""Linear layers: products of several modules made as one, weights packed or quantised, a place for adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bakehouse.engine.runner.torch.kernels import Kernel, make_kernel
from bakehouse.engine.runner.torch.native import Native

AdapterHook = Callable[[Tensor, Tensor], None]


class Part(NamedTuple):
    """Columns ``start .. stop`` of the output are what the model's own module *name* gives."""

    name: str
    start: int
    stop: int


class Linear(nn.Module):
    """``y = x W^T + b`` over the joined rows of one or more modules of the model.

    ``adapter``, where it is not None, is called with the flat input ``[rows, in_features]`` and the flat output
    ``[rows, out_features]`` and adds to the output in place.
    """

    def __init__(self, kernel: Kernel, parts: Sequence[Part]) -> None:
        super().__init__()
        self.kernel = kernel
        self.parts = tuple(parts)
        self.in_features = kernel.in_features
        self.out_features = parts[-1].stop
        self.adapter: AdapterHook | None = None

    def rows(self, x: Tensor) -> Tensor:
        """Of flat rows ``[rows, in_features]``: ``[rows, out_features]``."""
        y = self.kernel(x)
        if self.adapter is not None:
            self.adapter(x, y)
        return y

    def forward(self, x: Tensor) -> Tensor:
        y = self.rows(x.reshape(-1, self.in_features))
        return y.view(*x.shape[:-1], self.out_features)


class Shared:
    """The product of a group of modules that are given the same input, kept until each of them has had its part."""

    def __init__(self, linear: Linear) -> None:
        self.linear = linear
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._served = 0

    def part(self, index: int, x: Tensor) -> Tensor:
        if self._input is not x or self._output is None:
            self._input, self._output, self._served = x, self.linear(x), 0
        part = self.linear.parts[index]
        output = self._output[..., part.start : part.stop]
        self._served += 1
        if self._served == len(self.linear.parts):
            self._input = self._output = None
        return output


class Member(nn.Module):
    """Stands where one module of a group stood. The first of them owns the group's `Linear`."""

    def __init__(self, shared: Shared, index: int) -> None:
        super().__init__()
        self._shared = shared
        self._index = index
        if index == 0:
            self.linear = shared.linear

    def forward(self, x: Tensor) -> Tensor:
        return self._shared.part(self._index, x)


#: Siblings that every known architecture gives one and the same input.
GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def replace_linears(
    model: nn.Module, quantise: str | None, native: Native | None, keep: Sequence[nn.Module] = ()
) -> list[Linear]:
    """Put `Linear` in the place of every ``nn.Linear`` under *model* but those in *keep*, siblings joined.

    *quantise*: None, ``int8`` or ``int4``. A weight that is shared with another module (tied embeddings) stays shared
    where the kernel can read it as it is. Returns them in the model's order.
    """
    made: list[Linear] = []
    for path, parent in list(model.named_modules()):
        children = {
            name: child
            for name, child in parent.named_children()
            if type(child) is nn.Linear and not any(child is kept for kept in keep)
        }
        for names in _grouped(children):
            made.append(_replace(parent, path, names, [children[name] for name in names], quantise, native))
    return made


def _grouped(children: dict[str, nn.Linear]) -> list[tuple[str, ...]]:
    groups: list[tuple[str, ...]] = []
    taken: set[str] = set()
    for names in GROUPS:
        if all(name in children for name in names) and _joinable([children[name] for name in names]):
            groups.append(names)
            taken.update(names)
    return groups + [(name,) for name in children if name not in taken]


def _joinable(linears: Sequence[nn.Linear]) -> bool:
    first = linears[0]
    return all(
        (linear.in_features, linear.weight.dtype, linear.bias is None)
        == (first.in_features, first.weight.dtype, first.bias is None)
        for linear in linears
    )


def _replace(
    parent: nn.Module,
    path: str,
    names: Sequence[str],
    linears: Sequence[nn.Linear],
    quantise: str | None,
    native: Native | None,
) -> Linear:
    parts: list[Part] = []
    at = 0
    for name, linear in zip(names, linears, strict=True):
        parts.append(Part(f"{path}.{name}" if path else name, at, at + linear.out_features))
        at += linear.out_features
    joined = len(linears) > 1
    weight = torch.cat([linear.weight.data for linear in linears]) if joined else linears[0].weight.data
    bias: Tensor | None = None
    if linears[0].bias is not None:
        bias = torch.cat([linear.bias.data for linear in linears]) if joined else linears[0].bias.data
    made = Linear(make_kernel(weight, bias, quantise, native), parts)
    shared = Shared(made)
    for index, name in enumerate(names):
        setattr(parent, name, Member(shared, index) if joined else made)
    return made
