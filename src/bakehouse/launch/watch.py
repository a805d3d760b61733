"""How much memory and how many processes an instance uses, read from /proc. Blocks for microseconds per process."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of memory and number of processes of a whole tree."""

    memory: int
    processes: int


def usage(root: int, limit: int | None = None) -> Usage:
    """What *root* and all its descendants use. A process that ends while we look counts as nothing.

    Resident sizes count shared pages once per process; only where their sum passes *limit* the exact (and slower)
    proportional sizes are read.
    """
    pids = tree(root)
    resident = sum(_resident(pid) for pid in pids)
    if limit is not None and resident > limit:
        resident = sum(_proportional(pid) for pid in pids)
    return Usage(resident, len(pids))


def tree(root: int) -> list[int]:
    """*root* and its descendants, threads' children included."""
    found = [root]
    for pid in found:
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (names, many times a second)
        except OSError:
            continue
        for thread in threads:
            found += _children(pid, thread)
    return found


def _children(pid: int, thread: str) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
    except OSError:
        return []  # it has just ended
    return [int(child) for child in text.split()]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return _resident(pid)
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 3


class Reaper:
    """Makes this process the parent of orphans below it, and reaps those that nobody else waits for.

    A child of ours that somebody waits for is reaped within milliseconds of its end. One that is still there after
    several looks is the orphan of an instance that was killed from outside, shim and all.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def become_subreaper(self) -> None:
        """Raises nothing: where the kernel refuses, orphans go to the system's first process as ever."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def look(self) -> None:
        """One look; call it every so often."""
        ended = {pid: self._seen.get(pid, 0) + 1 for pid in _own_children() if _ended(pid)}
        for pid, looks in ended.items():
            if looks >= _PATIENCE:
                with contextlib.suppress(ChildProcessError):  # somebody waited for it after all
                    os.waitpid(pid, os.WNOHANG)
        self._seen = ended


def _own_children() -> list[int]:
    return [pid for thread in os.listdir("/proc/self/task") for pid in _children(os.getpid(), thread)]  # noqa: PTH208


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
