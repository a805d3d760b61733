"""``python -m bakehouse.engine``: an engine as a process of its own, started by `supervise`.

It reads one line of JSON, a `Config`, from stdin, loads its models, listens, and says so in one line on the descriptor
it was given: ``{"ready": true}`` or ``{"error": [code, detail, field]}``. SIGTERM makes it finish what runs and end; so
does the end of stdin, which comes when its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson

from bakehouse.engine.errors import EngineError
from bakehouse.engine.launching import Config

_PR_SET_PDEATHSIG = 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bakehouse.engine", description="One engine process; see supervise."
    )
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--ready-fd", type=int, required=True, help="the descriptor to say on that it listens")
    chosen = parser.parse_args()
    _die_with_parent()
    faulthandler.enable(all_threads=False)
    return asyncio.run(_run(chosen.socket, chosen.ready_fd))


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies; elsewhere than on Linux the end of stdin has to do."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


async def _run(path: Path, ready_fd: int) -> int:
    loop = asyncio.get_running_loop()
    told: asyncio.Event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    config = Config.read(await loop.run_in_executor(None, sys.stdin.buffer.readline))
    _watch_stdin(loop, told)
    try:
        # Imported here: it loads torch, and what is missing of it must be told as every other refusal is.
        from bakehouse.engine.handle import Engine
        from bakehouse.engine.serve import Server

        engine = await Engine.start(config.specs)
    except EngineError as error:
        _say(ready_fd, {"error": [error.code, error.detail, error.field]})
        return 1
    server = Server(engine, path)
    await server.start()
    _say(ready_fd, {"ready": True})
    await told.wait()
    await server.close(config.drain)
    await engine.close()
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


if __name__ == "__main__":
    sys.exit(main())
