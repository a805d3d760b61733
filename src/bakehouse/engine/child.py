"""What a process that `supervise` starts does beside its work: it hears what to do, says that it listens, and ends.

It reads one line of JSON, a `Config`, from stdin, and says in one line on the descriptor it was given either
``{"ready": true}`` or ``{"error": [code, detail, field]}``. SIGTERM makes it finish what runs and end; so does the end
of stdin, which comes when its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from bakehouse.engine.errors import EngineError
from bakehouse.engine.launching import Config

_PR_SET_PDEATHSIG = 1

Stop = Callable[[], Awaitable[None]]
#: Begins to serve at a path; what it returns lets the running work end and stops. Raises `EngineError`.
Serve = Callable[[Config, Path], Awaitable[Stop]]


def run_child(module: str, serve: Serve) -> int:
    """Be the process that runs *module*; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Started by bakehouse; see supervise.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--ready-fd", type=int, required=True, help="the descriptor to say on that it listens")
    chosen = parser.parse_args()
    _die_with_parent()
    faulthandler.enable(all_threads=False)
    return asyncio.run(_run(chosen.socket, chosen.ready_fd, serve))


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies; elsewhere than on Linux the end of stdin has to do."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


async def _run(path: Path, ready_fd: int, serve: Serve) -> int:
    loop = asyncio.get_running_loop()
    told: asyncio.Event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    config = Config.read(await loop.run_in_executor(None, sys.stdin.buffer.readline))
    _watch_stdin(loop, told)
    try:
        stop = await serve(config, path)
    except EngineError as error:
        _say(ready_fd, {"error": [error.code, error.detail, error.field]})
        return 1
    _say(ready_fd, {"ready": True})
    await told.wait()
    await stop()
    return 0


def _watch_stdin(loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    """Nothing more is written to stdin, so that anything there is its end."""

    def ended() -> None:
        loop.remove_reader(sys.stdin.fileno())
        told.set()

    loop.add_reader(sys.stdin.fileno(), ended)


def _say(descriptor: int, body: dict[str, Any]) -> None:
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(orjson.dumps(body) + b"\n")
