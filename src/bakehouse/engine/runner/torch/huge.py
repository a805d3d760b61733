"""Large tensors in huge pages, where the system gives them: a step reads gigabytes in order, and small pages of them
would have to be looked up one by one."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

#: What the kernel hands out as one page; a tensor below it gains nothing.
HUGE = 2 << 20


def zeros(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[rows, width]; on the CPU in huge pages, and not touched before it is used."""
    if device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(rows, width, dtype=dtype, device=device)
    return _mapped(rows * width, dtype).view(rows, width)


def in_huge_pages(values: Tensor) -> Tensor:
    """*values*, contiguous and on the CPU, moved to huge pages if it is large."""
    if values.nbytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return values
    return _mapped(values.numel(), values.dtype).view(values.shape).copy_(values)


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros that begin where a huge page does."""
    memory = mmap.mmap(-1, count * dtype.itemsize + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr() % HUGE
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start)
