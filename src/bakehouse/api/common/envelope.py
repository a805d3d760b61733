"""Answers: ``{"success": true, "status": 200, "data": ..., "messages": []}``, or the bare data for API version 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

Message = dict[str, Any]
"""``{"level": "warning", "code": ..., "message": ..., "meta"?: ...}``, shown by clients beside the answer."""

_OPTIONS = orjson.OPT_NON_STR_KEYS


class JsonReply(Response):
    """A finished JSON body. Its headers are laid out by hand: this stands on the path of every call."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


def warning(code: str, message: str, **meta: Any) -> Message:
    """A message of level warning; *meta* is data for programs."""
    item: Message = {"level": "warning", "code": code, "message": message}
    return {**item, "meta": meta} if meta else item


def reply(request: Request, data: Any, *, status: int = 200, messages: Sequence[Message] = ()) -> Response:
    """*data* (JSON-able, or an ``orjson.Fragment`` of finished JSON) in the envelope that *request* asked for."""
    if request.headers.get("x-api-version") == "2":
        return JsonReply(orjson.dumps(data, option=_OPTIONS), status)
    body = {"success": True, "status": status, "data": data, "messages": messages}
    return JsonReply(orjson.dumps(body, option=_OPTIONS), status)
