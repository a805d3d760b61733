"""What the tests of the examples share: where they lie, and a client that watches."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
from inferencesh import Inference

from tests.support.server import Server

EXAMPLES = Path(__file__).parents[2] / "examples" / "apps"


def client_of(server: Server) -> Inference:
    return Inference(api_key=server.key, base_url=server.base_url)


class Watched:
    """A finished run and what was seen on its way."""

    def __init__(self, client: Inference, params: dict[str, Any]) -> None:
        self.states: list[str] = []
        self.logs: list[str] = []
        self.progress: list[dict[str, Any]] = []
        self.partials: list[Any] = []
        for update in client.run(params, stream=True):
            self._see(update)
        self.task = client.get_task(self.task_id)

    def _see(self, update: Any) -> None:
        self.task_id = update["id"]
        state = str(update["status"])
        if state not in self.states:
            self.states.append(state)
        self.logs += update.get("logs") or []
        for name, seen in (("progress", self.progress), ("partial_output", self.partials)):
            value = update.get(name)
            if value is not None and (not seen or seen[-1] != value):
                seen.append(value)

    @property
    def output(self) -> Any:
        assert str(self.task["status"]) == "completed", self.task.get("error")
        return self.task["output"]


def fetch(uri: str) -> bytes:
    response = httpx.get(uri)
    response.raise_for_status()
    return response.content


def png(width: int, height: int, pixel: tuple[int, int, int], right: tuple[int, int, int] | None = None) -> bytes:
    """A PNG of one colour; *right* is the colour of its right half."""
    half = width // 2
    row = b"\0" + bytes(pixel) * half + bytes(right or pixel) * (width - half)
    body = zlib.compress(row * height)
    out = io.BytesIO(b"")
    out.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return out.getvalue()


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def png_pixels(data: bytes) -> list[bytes]:
    """The rows of an 8-bit RGB PNG, unfiltered."""
    width, height = png_size(data)
    raw = zlib.decompress(_idat(data))
    stride, rows, above = width * 3, [], bytes(width * 3)
    for number in range(height):
        start = number * (stride + 1)
        above = _unfilter(raw[start], raw[start + 1 : start + 1 + stride], above)
        rows.append(above)
    return rows


def _idat(data: bytes) -> bytes:
    found, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            found += data[at + 8 : at + 8 + length]
        at += length + 12
    return found


def _unfilter(kind: int, line: bytes, above: bytes) -> bytes:
    out = bytearray(line)
    for i in range(len(out)):
        left = out[i - 3] if i >= 3 else 0
        corner = above[i - 3] if i >= 3 else 0
        guess = left + above[i] - corner
        nearest = min((left, above[i], corner), key=lambda v: abs(guess - v))
        out[i] = (out[i] + (0, left, above[i], (left + above[i]) // 2, nearest)[kind]) & 255
    return bytes(out)
