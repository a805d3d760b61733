"""Serving stored bytes: ranges, validators, and headers that keep a stranger's file from acting as our page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bakehouse.api.common.problem import BadRange

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_INLINE = re.compile(r"(image/(png|jpeg|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|text/plain)(;.*)?", re.ASCII)
"""Types that a browser only shows. SVG, HTML, XML and PDF can run scripts or forms, so they are saved instead."""


@dataclass(frozen=True, slots=True)
class Download:
    """What is served; ``size`` in bytes, ``sha256`` its content's."""

    filename: str
    content_type: str
    size: int
    sha256: str
    public: bool


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """First byte and count that the Range header *text* asks of *size* bytes; None for the whole.

    Several ranges, other units and malformed ones mean the whole, as RFC 9110 allows. Raises BadRange.
    """
    found = _RANGE.fullmatch(text.replace(" ", "")) if text else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        count = min(int(found[2][:20]), size)
        if count == 0:
            raise BadRange(size)
        return size - count, count
    start = int(found[1][:20])
    end = min(int(found[2][:20]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2][:20]) < start:
        return None
    if start >= size:
        raise BadRange(size)
    return start, end - start + 1


def disposition(filename: str, content_type: str) -> str:
    """The Content-Disposition of a file: shown in place only when nothing can happen."""
    kind = "inline" if _INLINE.fullmatch(content_type) else "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def serve(request: Request, file: Download, read: Callable[[int, int | None], AsyncIterator[bytes]]) -> Response:
    """The answer for *file*; ``read(start, length)`` yields its bytes."""
    etag = f'"{file.sha256[:32]}"'
    headers = _headers(file, etag)
    if etag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    condition = request.headers.get("if-range")
    span = parse_range(request.headers.get("range") if condition in (None, etag) else None, file.size)
    start, count = span or (0, file.size)
    headers["content-length"] = str(count)
    if span is not None:
        headers["content-range"] = f"bytes {start}-{start + count - 1}/{file.size}"
    status = 206 if span is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.content_type)
    return StreamingResponse(read(start, count), status, headers, file.content_type)


def _headers(file: Download, etag: str) -> dict[str, str]:
    return {
        "etag": etag,
        "accept-ranges": "bytes",
        "content-disposition": disposition(file.filename, file.content_type),
        # Contents never change, but a deleted file must be gone: shared caches may keep only public ones, an hour.
        "cache-control": f"{'public' if file.public else 'private'}, max-age=3600",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
    }
