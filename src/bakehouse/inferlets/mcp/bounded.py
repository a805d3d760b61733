"""How much an MCP server may say at one time. The SDK collects a message before it looks at it, however long it is.

Over standard streams it decodes the bytes with a codec that is named in its parameters, so ours counts them; over HTTP
the stream of an answer can be replaced.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import cast

import httpx2

#: Bytes of one message.
MOST = 16 << 20

#: The codec's name, as `codecs` looks it up.
LINES = "bakehouse_lines"

#: Of the connection that is being made: called when a message is too long.
on_too_long: ContextVar[Callable[[], None]] = ContextVar("on_too_long")


def too_long() -> str:
    return f"it sent a message of more than {MOST} bytes"


class _Lines(codecs.IncrementalDecoder):
    """UTF-8, until a line is too long: from then on nothing."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._inner = codecs.getincrementaldecoder("utf-8")(errors)
        self._tell = on_too_long.get()
        self._length, self._over = 0, False

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        first, last = data.find(b"\n"), data.rfind(b"\n")
        longest = self._length + (len(data) if first < 0 else first)
        self._length = longest if first < 0 else len(data) - last - 1
        if longest > MOST and not self._over:
            self._over = True
            self._tell()
        return "" if self._over else self._inner.decode(data, final)


def _find(name: str) -> codecs.CodecInfo | None:
    if name != LINES:
        return None
    utf8 = codecs.lookup("utf-8")
    return codecs.CodecInfo(utf8.encode, utf8.decode, incrementaldecoder=_Lines, name=LINES)


codecs.register(_find)


class BoundedAnswer(httpx2.AsyncByteStream):
    """The body of an answer, which may have *most* bytes. Raises `httpx2.StreamError` where it has more, and where it
    is *packed*: what comes out of that may be a thousand times as long, and nobody could count it in time."""

    def __init__(self, inner: httpx2.AsyncByteStream, most: float, packed: bool) -> None:
        self._inner, self._most, self._packed = inner, most, packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._packed:
            raise httpx2.StreamError("its answer is compressed, which it was not asked for")
        length = 0
        async for chunk in self._inner:
            length += len(chunk)
            if length > self._most:
                raise httpx2.StreamError(too_long())
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def bounded(response: httpx2.Response) -> BoundedAnswer:
    """The body of *response*. A stream of events has no end; each of them is bounded by who reads it."""
    events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    packed = response.headers.get("content-encoding", "identity").lower() != "identity"
    return BoundedAnswer(cast(httpx2.AsyncByteStream, response.stream), math.inf if events else MOST, packed)
