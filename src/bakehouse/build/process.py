"""Tools that a build runs: their lines go to the task's log, and they end when the build ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bakehouse.core.errors import BakehouseError

Log = Callable[[str, list[str]], None]
"""Takes the stream's name (``stdout``, ``stderr``, ``system``) and whole lines."""

_LINE_LIMIT = 64 * 1024
_TAIL = 60
_PIPE_GRACE = 1.0
_LOOK_AGAIN = 0.01


class BuildFailed(BakehouseError):
    """A version cannot be built. ``detail`` is one short line, ``traceback`` what the tool or the app said."""

    status = 422
    code = "build_failed"

    def __init__(self, detail: str, traceback: str = "") -> None:
        super().__init__(detail)
        self.traceback = traceback


class Spawn(Protocol):
    """Starts a tool, isolated if the platform can.

    The process leads its own group, reads nothing, and writes both streams to ``stdout``. It may write below
    *writable* and read below *readable* and the system's own folders.
    """

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        writable: Sequence[Path],
        readable: Sequence[Path],
    ) -> asyncio.subprocess.Process: ...


async def spawn_plain(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    writable: Sequence[Path],
    readable: Sequence[Path],
) -> asyncio.subprocess.Process:
    """Start a tool without isolation: for systems that have none, where *writable* and *readable* bind nobody."""
    return await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def run_tool(process: asyncio.subprocess.Process, log: Log) -> tuple[int, list[str]]:
    """Wait for *process*, logging its lines; its exit code and last lines. Cancelling kills its whole group."""
    tail: deque[str] = deque(maxlen=_TAIL)
    pump = asyncio.create_task(_pump(process, log, tail))
    try:
        await _ended(process)
        _kill_group(process)
        # What left the group may hold the pipe for ever; the tool itself has written all by now.
        await asyncio.wait([pump], timeout=_PIPE_GRACE)
    finally:
        _kill_group(process)
        pump.cancel()
        await asyncio.shield(_release(process))
    return process.returncode or 0, list(tail)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Return when the process has ended. asyncio's own wait() waits for its pipe too, which others may hold."""
    while process.returncode is None:  # noqa: ASYNC110 (asyncio offers no event for this)
        await asyncio.sleep(_LOOK_AGAIN)


async def _release(process: asyncio.subprocess.Process) -> None:
    await _ended(process)
    # Only the transport can close our end of a pipe that somebody still holds.
    process._transport.close()  # type: ignore[attr-defined]


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Also after a normal end: what the tool left running in its group must not outlive the build."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _pump(process: asyncio.subprocess.Process, log: Log, tail: deque[str]) -> None:
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(_LINE_LIMIT):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_LIMIT:
            lines, rest = [*lines, rest], b""
        _hand_on(lines, log, tail)
    _hand_on([rest] if rest else [], log, tail)


def _hand_on(lines: list[bytes], log: Log, tail: deque[str]) -> None:
    texts = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
    if texts:
        tail.extend(texts)
        log("stdout", texts)
