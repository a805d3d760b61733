"""A client and a server in another process: what a launch and a message cost over the WebSocket."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from inferlet.client import Message, connect

from bakehouse.inferlets import bakery
from benchmarks.engine.workers import CACHE
from benchmarks.inferlets.house import HERE


async def measure(address: str, times: int) -> dict[str, float]:
    """Medians in milliseconds: launch to result, and a message to the program and back."""
    async with connect(address) as client:
        for name in ("noop", "echo"):
            wasm, manifest = _program(name)
            await client.install(wasm, manifest, force=True)
        launches, messages = [], []
        for _ in range(times):
            began = time.perf_counter()
            await (await client.launch("noop")).result()
            launches.append((time.perf_counter() - began) * 1000)
        process = await client.launch("echo")
        await process.next_event()
        for _ in range(times):
            began = time.perf_counter()
            await process.signal("hello")
            event = await process.next_event()
            assert isinstance(event, Message)
            messages.append((time.perf_counter() - began) * 1000)
        await process.signal("end")
        await process.result()
    return {"launch": statistics.median(launches), "message": statistics.median(messages)}


def _program(name: str) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / name
        source.mkdir()
        (source / "main.py").write_bytes((HERE / "programs" / f"{name}.py").read_bytes())
        (source / "Pie.toml").write_text(f'[package]\nname = "{name}"\nversion = "1.0.0"\n')
        built = bakery.build(source, Path(folder) / "out.wasm", cache=CACHE / "bakery")
        return built.path.read_bytes(), built.manifest_text


def run(times: int) -> dict[str, float]:
    """Against ``pie serve --dummy``, on a free port of this machine, without keys.

    Once by a client on asyncio's own loop, and once by one on uvloop (``uvloop_launch``, ``uvloop_message``); the
    server is on uvloop in either case.
    """
    with tempfile.TemporaryDirectory(prefix="bench-inferlets-") as home:
        command = [str(Path(sys.executable).parent / "pie"), "serve", "--dummy", "--no-auth", "--port", "0"]
        environment = {**os.environ, "BAKEHOUSE_HOME": home}
        server = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            address = _address(server)
            found = asyncio.run(measure(address, times))
            quicker = uvloop.run(measure(address, times))
            return found | {f"uvloop_{name}": value for name, value in quicker.items()}
        finally:
            server.terminate()
            server.wait(30)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        for word in line.split():
            if word.startswith(("http://", "ws://")):
                return word.rstrip("/")
    raise SystemExit("pie serve ended before it listened")
