"""How much memory there is to give to a KV pool."""

from __future__ import annotations

from pathlib import Path


def free_bytes(device: str) -> int:
    """Bytes that are free on *device*; on the CPU also within the limit of this process's control group."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min(_available(Path("/proc/meminfo")), _left_in_group(Path("/sys/fs/cgroup")))


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{meminfo} does not say what is available")


def _left_in_group(group: Path) -> int:
    """Of version 2 and version 1 control groups; a huge number where neither sets a limit."""
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        if limit.exists() and limit.read_text().strip() != "max":
            return max(0, int(limit.read_text()) - int(used.read_text()))
    return 2**62
