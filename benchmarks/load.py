"""A cheap HTTP load generator: N callers, each with one keep-alive connection and one request in flight.

It runs as a process of its own (``python -m benchmarks.load SPEC``, SPEC is JSON: url, body, headers, callers,
seconds, expect) and prints one JSON object: count, errors, seconds, rate, p50_ms, p99_ms. It understands answers with
a ``Content-Length`` only and compares bytes instead of parsing JSON, so that it measures servers and not itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop


@dataclass
class Tally:
    """What the callers saw; latencies are in seconds."""

    deadline: float
    expect: bytes
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""
    running: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Caller(asyncio.Protocol):
    """One connection: sends its request again as soon as the answer is complete, until the deadline."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._buffer = b""
        self._needed = 0
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._tally.running += 1
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._buffer, self._needed, self._sent = b"", 0, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._needed = end + 4 + _content_length(self._buffer[:end])
        if len(self._buffer) >= self._needed:
            self._answered()

    def _answered(self) -> None:
        tally, now = self._tally, time.perf_counter()
        if self._buffer.startswith(b"HTTP/1.1 2") and tally.expect in self._buffer:
            tally.latencies.append(now - self._sent)
        else:
            tally.errors += 1
            tally.first_error = tally.first_error or self._buffer[:600].decode(errors="replace")
        if now < tally.deadline:
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._tally.deadline:
            self._tally.errors += 1
            self._tally.first_error = self._tally.first_error or f"connection lost: {exc}"
        self._tally.running -= 1
        if not self._tally.running:
            self._tally.done.set()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError(f"an answer without Content-Length: {head!r}")


def request_bytes(url: str, body: str, headers: dict[str, str]) -> bytes:
    """A POST of *body* to *url* as it goes over the wire."""
    parts = urlsplit(url)
    fields = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {parts.path} HTTP/1.1\r\n{lines}\r\n{body}".encode()


def percentile(sorted_values: list[float], share: float) -> float:
    """The value below which *share* of the sorted values lie; 0.0 for none."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))] if sorted_values else 0.0


def summary(latencies: list[float], seconds: float, errors: int = 0, first_error: str = "") -> dict[str, Any]:
    """What every generator reports: a rate per second, and latencies in milliseconds."""
    ordered = sorted(latencies)
    return {
        "count": len(ordered),
        "errors": errors,
        "first_error": first_error,
        "seconds": round(seconds, 3),
        "rate": round(len(ordered) / seconds, 1) if seconds else 0.0,
        "p50_ms": round(percentile(ordered, 0.50) * 1000, 3),
        "p99_ms": round(percentile(ordered, 0.99) * 1000, 3),
    }


async def drive(spec: dict[str, Any]) -> dict[str, Any]:
    loop, parts = asyncio.get_running_loop(), urlsplit(spec["url"])
    request = request_bytes(spec["url"], spec["body"], spec.get("headers", {}))
    started = time.perf_counter()
    tally = Tally(started + spec["seconds"], spec.get("expect", "").encode())
    callers = (
        loop.create_connection(lambda: Caller(request, tally), parts.hostname, parts.port)
        for _ in range(spec["callers"])
    )
    await asyncio.gather(*callers)
    await asyncio.wait_for(tally.done.wait(), spec["seconds"] + 60)
    return summary(tally.latencies, time.perf_counter() - started, tally.errors, tally.first_error)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(drive(json.loads(sys.argv[1])))))
