"""The frames of the protocol, without any I/O: JSON texts, and bytes in chunks behind a text that tells their size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

#: Bytes of one binary frame.
CHUNK = 1 << 20
#: Bytes of any frame that this side takes.
MAX_FRAME = 16 << 20


#: Made once: `json.dumps` with options makes one each time.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class BadFrame(ValueError):
    """The other side does not speak this protocol."""


def encode(frame: Mapping[str, Any]) -> str:
    """Raises `ValueError` for numbers that JSON has not, such as infinity."""
    return _encode(frame)


def chunks(data: bytes) -> Iterator[bytes]:
    """*data* as binary frames; none for no bytes."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK):
        yield bytes(view[start : start + CHUNK])


class Assembly:
    """Puts frames together: gives each text frame as an object, with the bytes that belong to it."""

    def __init__(self) -> None:
        self._head: dict[str, Any] | None = None
        self._parts: list[bytes] = []
        self._missing = 0

    def feed(self, frame: str | bytes) -> tuple[dict[str, Any], bytes] | None:
        """What *frame* completes, if it does. Raises `BadFrame`."""
        if isinstance(frame, str):
            return self._text(frame)
        if self._head is None or len(frame) > self._missing:
            raise BadFrame("bytes came that no frame before them told of")
        self._parts.append(frame)
        self._missing -= len(frame)
        return self._done() if not self._missing else None

    def _text(self, frame: str) -> tuple[dict[str, Any], bytes] | None:
        if self._head is not None:
            raise BadFrame(f"{self._missing} bytes are missing before this frame")
        try:
            found = json.loads(frame)
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"not JSON: {error}") from error
        if not isinstance(found, dict):
            raise BadFrame("a frame is a JSON object")
        size = found.get("size", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadFrame(f"size: must be a number of bytes, not {size!r}")
        self._head, self._missing = found, size
        return None if size else self._done()

    def _done(self) -> tuple[dict[str, Any], bytes]:
        assert self._head is not None
        head, data = self._head, b"".join(self._parts)
        self._head, self._parts = None, []
        return head, data
