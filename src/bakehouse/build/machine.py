"""What this machine has, and whether an app fits on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bakehouse.core.app import Resources
from bakehouse.core.errors import Invalid

_QUERY = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]
_MEGA = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its maker and its memory in bytes."""

    type: str
    vram: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes (0: not known, so nothing is refused for it) and the GPUs that can be used."""

    ram: int
    gpus: tuple[Gpu, ...] = ()


def read_machine() -> Machine:
    """Look at this machine. Blocks for as long as ``nvidia-smi`` takes (10 seconds at most)."""
    return Machine(_ram(), _nvidia())


def check_resources(resources: Resources, machine: Machine) -> None:
    """Return when *machine* can hold an app that needs *resources*, else raise Invalid saying what is missing."""
    problem = _lacks_gpu(resources, machine) or _lacks_ram(resources, machine)
    if problem:
        path, message = problem
        detail = f"this machine cannot run the app: {message}"
        raise Invalid(detail, code="resources_unavailable", fields=[{"path": path, "message": message}])


def _lacks_gpu(wanted: Resources, machine: Machine) -> tuple[str, str] | None:
    if wanted.gpu_count == 0:
        return None
    fit = [gpu for gpu in machine.gpus if wanted.gpu_type in ("any", gpu.type)]
    kind = "" if wanted.gpu_type == "any" else f" of type {wanted.gpu_type}"
    if len(fit) < wanted.gpu_count:
        return "/inf.yml/resources/gpu/count", f"it asks for {wanted.gpu_count} GPU{kind}, and there are {len(fit)}"
    large = [gpu for gpu in fit if gpu.vram >= wanted.gpu_vram]
    if len(large) < wanted.gpu_count:
        most = max(gpu.vram for gpu in fit)
        return (
            "/inf.yml/resources/gpu/vram",
            f"it asks for {_gb(wanted.gpu_vram)} GPU memory, and the most is {_gb(most)}",
        )
    return None


def _lacks_ram(wanted: Resources, machine: Machine) -> tuple[str, str] | None:
    if not machine.ram or wanted.ram <= machine.ram:
        return None
    return "/inf.yml/resources/ram", f"it asks for {_gb(wanted.ram)} memory, and there are {_gb(machine.ram)}"


def _gb(count: int) -> str:
    return f"{count / 10**9:.1f} GB"


def _ram() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # In a container the cgroup is the truth; "max" there means no bound.
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        bound = Path(path)
        text = bound.read_text().strip() if bound.is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total


def _nvidia() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        answer = subprocess.run([tool, *_QUERY], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        # The tool without a working driver is a machine without a GPU; the refusal then says "there are 0".
        return ()
    # Unified-memory GPUs answer "[N/A]": their memory is not known and not refused.
    return tuple(Gpu("nvidia", int(line) * _MEGA if line.strip().isdigit() else 2**62) for line in answer.splitlines())
