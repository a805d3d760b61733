"""How much memory and how many processes an instance uses, read from /proc. Blocks for microseconds per process."""

from __future__ import annotations

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
