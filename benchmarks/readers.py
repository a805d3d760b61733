"""Many readers of task streams, as cheap as possible: they count lines and look for the terminal one.

``python -m benchmarks.readers`` reads JSON from its input: host, port, key, tasks (one id per stream; ids may repeat),
timeout, mark (what only a published update holds). It prints one JSON object when every stream has ended. Lines from
before the last stream opened do not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

import uvloop

HEARTBEAT = b'"heartbeat"'
TERMINAL = b'"status":10,'


class Reader(asyncio.Protocol):
    """One stream: its number of lines, and whether the terminal line came."""

    def __init__(self, request: bytes, crowd: Crowd) -> None:
        self._request = request
        self._crowd = crowd
        self._tail = b""
        self.lines = 0
        self.bytes = 0
        self.terminal = False
        self._opened = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._opened:
            self._opened = True
            self._crowd.opened(data.startswith(b"HTTP/1.1 200"), data)
        updates = data.count(b"\n{") + data.startswith(b"{") - data.count(HEARTBEAT)
        self.lines += updates
        if self._crowd.mark in data:
            self._crowd.heard()
        self.bytes += len(data)
        seen = self._tail + data
        self.terminal = self.terminal or TERMINAL in seen
        self._tail = seen[-len(TERMINAL) :]
        if data.endswith(b"\r\n0\r\n\r\n") or data == b"0\r\n\r\n":
            self._transport.close()  # the stream ended; keep-alive would leave the connection open

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.ended()


class Crowd:
    """All readers of one run."""

    def __init__(self, size: int, mark: bytes) -> None:
        self.mark = mark
        self._waiting_to_open = size
        self._waiting_to_end = size
        self.all_open, self.all_ended = asyncio.Event(), asyncio.Event()
        self.refused = 0
        self.first_refusal = ""
        self.first = self.last = 0.0

    def heard(self) -> None:
        """Keep the times of the first and the last published update after every stream stood."""
        if self.all_open.is_set():
            self.last = time.perf_counter()
            self.first = self.first or self.last

    def opened(self, fine: bool, data: bytes) -> None:
        self._waiting_to_open -= 1
        if not fine:
            self.refused += 1
            self.first_refusal = self.first_refusal or data[:400].decode(errors="replace")
        if not self._waiting_to_open:
            self.all_open.set()

    def ended(self) -> None:
        self._waiting_to_end -= 1
        if not self._waiting_to_end:
            self.all_ended.set()


def request_bytes(spec: dict[str, Any], task_id: str) -> bytes:
    fields = {
        "Host": f"{spec['host']}:{spec['port']}",
        "Authorization": f"Bearer {spec['key']}",
        "Accept": "application/x-ndjson",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET /tasks/{task_id}/stream HTTP/1.1\r\n{lines}\r\n".encode()


async def read(spec: dict[str, Any]) -> dict[str, Any]:
    loop, crowd = asyncio.get_running_loop(), Crowd(len(spec["tasks"]), spec["mark"].encode())
    readers = [Reader(request_bytes(spec, task_id), crowd) for task_id in spec["tasks"]]
    gate = asyncio.Semaphore(50)  # a listening queue is short

    async def connect(reader: Reader) -> None:
        async with gate:
            await loop.create_connection(lambda: reader, spec["host"], spec["port"])

    await asyncio.gather(*map(connect, readers))
    await asyncio.wait_for(crowd.all_open.wait(), spec["timeout"])
    lines_before = sum(reader.lines for reader in readers)
    try:
        await asyncio.wait_for(crowd.all_ended.wait(), spec["timeout"])
        timed_out = False
    except TimeoutError:
        timed_out = True
    seconds = max(crowd.last - crowd.first, 0.001)
    lines = sum(reader.lines for reader in readers) - lines_before
    return {
        "streams": len(readers),
        "lines": lines,
        "seconds": round(seconds, 3),
        "rate": round(lines / seconds, 1),
        "megabytes": round(sum(reader.bytes for reader in readers) / 1e6, 1),
        "terminal": sum(reader.terminal for reader in readers),
        "least_lines": min(reader.lines for reader in readers),
        "refused": crowd.refused,
        "first_refusal": crowd.first_refusal,
        "timed_out": timed_out,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(read(json.load(sys.stdin)))))
