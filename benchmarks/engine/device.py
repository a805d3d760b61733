"""What is asked of the device that a torch system runs on."""

from __future__ import annotations

import torch

from benchmarks.engine.workers import memory_mib


def card(device: str) -> str:
    """The GPU's name; empty on the CPU."""
    return torch.cuda.get_device_name() if device == "cuda" else ""


def memory(device: str) -> dict[str, float]:
    """MiB now and at most: of the process on the CPU, of its tensors on a GPU."""
    if device == "cpu":
        return memory_mib()
    now, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    return {"now": now / 2**20, "peak": peak / 2**20, "files": 0.0}


def finish(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
