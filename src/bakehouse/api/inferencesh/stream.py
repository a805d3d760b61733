"""Task streams over HTTP: NDJSON or server-sent events on the same resource, written straight to ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bakehouse.api.inferencesh import shapes
from bakehouse.service.streams import Update

_HEADERS = [(b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no")]

PY_LINE_LIMIT = 128 * 1024
"""The published Python client fails on a longer line; without it, it asks for the task instead."""


class StreamReply(Response):
    """Writes batches of updates until they end or the reader leaves.

    A reader that reads slowly holds only itself up: ``send`` waits for it, and what is published meanwhile is
    dropped to the newest snapshot by its subscription.
    """

    def __init__(self, batches: AsyncIterator[list[Update]], *, sse: bool, line_limit: int | None) -> None:
        self.status_code = 200
        self.body = b""
        self.background = None
        media = b"text/event-stream; charset=utf-8" if sse else b"application/x-ndjson"
        self.raw_headers = [(b"content-type", media), *_HEADERS]
        self._batches = batches
        self._name = "sse" if sse else "ndjson"
        self._encode: Callable[[Update], bytes] = shapes.sse if sse else shapes.ndjson
        self._heartbeat = b": hb\n\n" if sse else shapes.HEARTBEAT
        self._line_limit = line_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.current_task()
        assert writer is not None
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda done: None if done.cancelled() else writer.cancel())
        try:
            await self._write(send)
        except asyncio.CancelledError:
            if not gone.done() or writer.uncancel():
                raise  # the server stops; a reader that merely left is no error
        finally:
            gone.cancel()
            aclose = getattr(self._batches, "aclose", None)
            if aclose is not None:
                await aclose()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for batch in self._batches:
            body = b"".join(self._chunks(batch)) if batch else self._heartbeat
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _chunks(self, batch: list[Update]) -> list[bytes]:
        chunks = [update.bytes_for(self._name, self._encode) for update in batch]
        limit = self._line_limit
        return chunks if limit is None else [chunk for chunk in chunks if len(chunk) <= limit]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
