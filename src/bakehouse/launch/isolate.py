"""What an instance may see and use: the plan that `shim.py` applies, and what this machine cannot enforce."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bakehouse.core.app import Limits

SHIM = Path(__file__).with_name("shim.py")
APPHOST = Path(__file__).parents[1] / "apphost"
ISOLATION_FAILED = 120
"""The shim's exit status when it could not apply its plan."""

_OPEN_FILES = 4096
_SHARED_MEMORY = 1024**3

_SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/proc", "/sys"]
# Not all of /etc: as root an app could read password hashes and host keys.
_ETC = [
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "gai.conf", "group",
    "host.conf", "hosts", "hostname", "ImageMagick-6", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "machine-id", "magic", "mime.types", "nsswitch.conf", "OpenCL", "os-release", "passwd", "pki", "protocols",
    "resolv.conf", "services", "ssl", "timezone", "vulkan",
]  # fmt: skip
_DEVICES = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "dri", "kfd", "fd"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What this machine can enforce. ``reasons`` says for each missing part why."""

    namespaces: bool
    landlock: bool
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one instance. All but ``root`` are writable for the app."""

    root: Path
    work: Path
    temp: Path
    cache: Path
    outbox: Path
    tmp: Path

    @classmethod
    def below(cls, root: Path) -> Places:
        """The directories of the instance that lives in *root*, created with access for this user only."""
        root.mkdir(mode=0o700, parents=True, exist_ok=False)
        root = root.resolve()
        places = cls(root, *(root / name for name in ("work", "temp", "cache", "outbox", "tmp")))
        for path in places.writable:
            path.mkdir(mode=0o700)
        return places

    @property
    def writable(self) -> list[Path]:
        return [self.work, self.temp, self.cache, self.outbox, self.tmp]


@cache
def offer() -> Offer:
    """What this machine can enforce, tried once on a child that does nothing (tens of milliseconds)."""
    reasons: dict[str, str] = {}
    found = {}
    for part in ("namespaces", "landlock"):
        plan = {
            "argv": ["/bin/true"], "cwd": "/", "isolate": {part: True}, "read": ["/"], "write": [], "devices": [],
            "hide": [], "keep": [], "limits": {}, "shm": 4096,
        }  # fmt: skip
        done = subprocess.run(command(plan), capture_output=True, text=True, check=False, env={})
        found[part] = done.returncode == 0
        if done.returncode != 0:
            reasons[part] = done.stderr.strip() or f"exit status {done.returncode}"
    return Offer(found["namespaces"], found["landlock"], reasons)


def describe_isolation(isolation: str = "auto") -> list[str]:
    """What is not enforced on this machine, one sentence each, for the operator; empty when all is."""
    if isolation == "off":
        return ["isolation is switched off: apps can read and write whatever this server's user can"]
    told = []
    if not offer().landlock:
        told.append(f"files: apps can read whatever this server's user can (Landlock: {offer().reasons['landlock']})")
    if not offer().namespaces:
        told.append(
            "processes: apps see other processes and local sockets, have no /tmp, and what they leave behind is swept "
            f"instead of ended by the kernel (namespaces: {offer().reasons['namespaces']})"
        )
    return told


def command(plan: dict[str, Any]) -> list[str]:
    """The command line that runs *plan*."""
    return [sys.executable, "-I", "-S", str(SHIM), json.dumps({**plan, "parent": os.getpid()}, separators=(",", ":"))]


def make_plan(
    argv: Sequence[str],
    *,
    home: Path,
    places: Places,
    readable: Sequence[Path],
    limits: Limits,
    isolation: str = "auto",
    writable: Sequence[Path] = (),
) -> dict[str, Any]:
    """The shim's plan for a process that writes its *places*, reads *readable* and sees nothing else of *home*."""
    on = offer() if isolation != "off" else Offer(False, False)
    reads = [*map(str, readable), str(APPHOST), *_prefixes(Path(argv[0]))]
    writes = [*map(str, places.writable), *map(str, writable)]
    return {
        "argv": list(argv),
        "cwd": str(places.work),
        "isolate": {"namespaces": on.namespaces, "landlock": on.landlock},
        "read": [*_SYSTEM, *(f"/etc/{name}" for name in _ETC), *_resolver(), *reads],
        "write": [*writes, *(["/tmp", "/var/tmp", "/dev/shm"] if on.namespaces else [])],
        "devices": [f"/dev/{name}" for name in _DEVICES] + [str(path) for path in Path("/dev").glob("nvidia*")],
        "hide": _hidden(home.resolve(), places),
        "keep": _outermost([*writes, *reads, *_resolver()]),
        "limits": _rlimits(limits),
        "shm": min(limits.memory or _SHARED_MEMORY, _SHARED_MEMORY),
    }


def _hidden(home: Path, places: Places) -> list[tuple[str, str | None]]:
    """Directories to cover: shared temporary ones by the instance's own, sockets and our data by nothing."""
    covers: list[tuple[str, str | None]] = [("/tmp", str(places.tmp)), ("/var/tmp", str(places.tmp)), ("/run", None)]
    covers = [(top, cover) for top, cover in covers if Path(top).is_dir()]
    inside = any(home.is_relative_to(top) for top, _ in covers)
    return covers if inside else [*covers, (str(home), None)]


def _outermost(paths: list[str]) -> list[str]:
    """*paths* that exist, without those below another one."""
    chosen: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths if Path(path).exists()}):
        if not any(path.startswith(top + "/") for top in chosen):
            chosen.append(path)
    return chosen


def _prefixes(python: Path) -> list[str]:
    """What an interpreter needs beside its venv: the installation that the venv points to."""
    home = python.parent.parent
    real = python.resolve()
    prefixes = {str(home), str(real.parent.parent)} if real.exists() else {str(home)}
    # A chain of links (a managed Python's minor-version link) must be readable at every step.
    link = python
    while link.is_symlink():
        link = link.parent / link.readlink()
        prefixes.add(os.path.normpath(link.parent.parent))
    return sorted(prefixes - {"/"})


def _resolver() -> list[str]:
    """Where resolv.conf really is: often below /run, which is covered."""
    real = Path("/etc/resolv.conf").resolve()
    return [str(real)] if str(real).startswith(("/run/", "/var/run/")) and real.exists() else []


def _rlimits(limits: Limits) -> dict[str, int]:
    # Memory and processes are watched from outside: RLIMIT_AS breaks torch and CUDA, and RLIMIT_NPROC binds no root.
    found = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": _OPEN_FILES}
    if limits.file_size is not None:
        found["RLIMIT_FSIZE"] = limits.file_size
    if limits.cpu_time is not None:
        found["RLIMIT_CPU"] = limits.cpu_time
    return found
