"""Folders that appear whole or not at all, locks between processes, and removal of what is read-only."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

_LOOK_AGAIN = 0.1
"""Seconds between two tries for a lock that another process holds; flock offers no other way that can be cancelled."""


def remove_tree(path: Path) -> None:
    """Remove *path* and all below it, read-only folders included; nothing there is fine."""
    if not path.exists():
        return
    for folder, _, _ in os.walk(path):
        # Owners may always change a mode; without this only root could remove what is in it.
        Path(folder).chmod(0o755)
    shutil.rmtree(path)


def freeze_tree(path: Path) -> None:
    """Take the right to write from every file and folder below *path*, and from *path*."""
    for folder, _, files in os.walk(path):
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(file.stat().st_mode & ~0o222)
        Path(folder).chmod(0o555)


def take_lock(path: Path) -> int | None:
    """Lock the file *path*: a descriptor to close, or None while anyone (this process too) holds it.

    The lock ends with the process that holds it, so a crash leaves none behind. The file itself stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@asynccontextmanager
async def locked(path: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock file *path* for the block; ``on_wait`` is called once when somebody else has it."""
    descriptor = take_lock(path)
    if descriptor is None:
        on_wait()
    while descriptor is None:
        await asyncio.sleep(_LOOK_AGAIN)
        descriptor = take_lock(path)
    try:
        yield
    finally:
        os.close(descriptor)
