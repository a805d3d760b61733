"""The outermost layer, one plain ASGI callable: ids, limits, CORS, the last word on faults, and what operators see.

It is no ``BaseHTTPMiddleware``: that one costs a task per request and holds streams back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bakehouse.api.common import problem
from bakehouse.core.errors import BakehouseError, Invalid, NotFound, TooLarge

_SLASHES = re.compile(r"/{2,}")
_ALLOW_HEADERS = (
    b"authorization, content-type, accept, cache-control, last-event-id, prefer, idempotency-key, "
    b"x-client-source, x-api-version, x-inf-target-url"
)
_EXPOSE_HEADERS = b"content-disposition, content-range, etag, retry-after, x-request-id"
LINGER_SECONDS = 5.0

log = structlog.get_logger("bakehouse.api")


class _Exchange:
    """One request and what is known of its answer."""

    __slots__ = ("cors", "id", "received", "started", "status")

    def __init__(self, request_id: str, cors: list[tuple[bytes, bytes]]) -> None:
        self.id = request_id
        self.cors = cors
        self.status = 0
        self.started = time.perf_counter()
        self.received = 0


class Edge:
    """See the module's text. ``streamed`` names path prefixes whose bodies are bounded elsewhere.

    ``hot`` are routes, by method and exact path, that are called without the router between: see ``direct``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int,
        allow_origins: Iterable[str] = ("*",),
        streamed: tuple[str, ...] = (),
        access_log: bool = True,
        on_request: Callable[[str, str, int, float], None] | None = None,
        hot: Mapping[tuple[str, str], ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._hot = hot or {}
        self._max_body = max_body
        origins = list(allow_origins)
        self._any_origin = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._streamed = streamed
        self._access_log = access_log
        self._on_request = on_request
        # A random start and a counter: unique enough to find a line in a log, at the price of one addition.
        self._boot = os.urandom(4).hex()
        self._count = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = _Exchange(f"req_{self._boot}{next(self._count):x}", self._cors(headers.get(b"origin")))
        scope.setdefault("state", {})["request_id"] = exchange.id
        # Errors that are raised out here are laid out with the application's own settings.
        sender = self._sender(exchange, receive, send)
        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await _preflight(sender)
            else:
                self._tidy(scope)
                app = self._hot.get((scope["method"], scope["path"]), self._app)
                await app(scope, self._receiver(scope, headers, exchange, receive), sender)
        except ClientDisconnect:
            exchange.status = exchange.status or 499  # nobody is left to be answered
        except Exception as error:
            await self._failed(error, exchange, scope, receive, sender)
        finally:
            self._finish(exchange, scope)

    @staticmethod
    def _tidy(scope: Scope) -> None:
        path: str = scope["path"]
        if "//" in path:
            scope["path"] = path = _SLASHES.sub("/", path)
            scope["raw_path"] = _SLASHES.sub("/", scope.get("raw_path", b"").decode("latin-1")).encode("latin-1")
        if "\x00" in path:
            raise NotFound("no path holds the character NUL")
        if b"%00" in scope.get("query_string", b""):
            raise Invalid("the query must not hold the character NUL", code="invalid_request")

    def _cors(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        if origin is None or not (self._any_origin or origin in self._origins):
            return []
        # Credentialed requests are refused by browsers for "*", so the origin is always named. A key is in a header
        # and never in a cookie, so naming it grants nothing to a page that does not hold a key.
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSE_HEADERS),
            (b"vary", b"origin"),
        ]

    def _receiver(self, scope: Scope, headers: dict[bytes, bytes], exchange: _Exchange, receive: Receive) -> Receive:
        if scope["path"].startswith(self._streamed):
            return receive
        limit = self._max_body
        length = headers.get(b"content-length")
        if length is not None:
            if length.isdigit() and int(length) > limit:
                raise _too_large(limit)
            return receive  # the HTTP server never hands on more than was announced
        if b"transfer-encoding" not in headers:
            return receive

        async def counted() -> Message:
            message = await receive()
            exchange.received += len(message.get("body", b""))
            if exchange.received > limit:
                raise _too_large(limit)
            return message

        return counted

    @staticmethod
    def _sender(exchange: _Exchange, receive: Receive, send: Send) -> Send:
        extra = [(b"x-request-id", exchange.id.encode()), *exchange.cors]

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            elif exchange.status == 413 and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _linger(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return sender

    async def _failed(self, error: Exception, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        if not isinstance(error, BakehouseError):
            log.error(
                "request failed", action="request_failed", request=exchange.id, path=scope["path"], exc_info=error
            )
            error = problem.internal(exchange.id)
        if exchange.status:
            # The head is out. Closing without the last chunk tells the client that the answer is cut off.
            exchange.status = 599
            return
        await problem.problem(scope, error)(scope, receive, send)

    def _finish(self, exchange: _Exchange, scope: Scope) -> None:
        seconds = time.perf_counter() - exchange.started
        status = exchange.status or 499
        if self._on_request is not None:
            self._on_request(_template(scope), scope["method"], status, seconds)
        if self._access_log or status >= 500:
            write = log.warning if status >= 500 else log.info
            write(
                "request",
                action="request",
                request=exchange.id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 2),
            )


def direct(app: Any, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """The *endpoint* of *path* as an ASGI callable of its own.

    Routing, dependency solving and the exit stacks of a general route cost a quarter of a short task (measured); an
    endpoint that only takes the request needs none of them. Its route stays in *app* for the OpenAPI document.
    """
    route = Route(path, endpoint)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"], scope["route"] = app, route
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    return call


def _template(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "unmatched"


async def _linger(receive: Receive) -> None:
    """Throw away what a client still sends after it was refused. Closing at once would reset the connection, and many
    clients then never see the answer. Ends with the body, the connection or after some seconds."""
    with contextlib.suppress(TimeoutError):  # it has had its time; now the connection is cut
        async with asyncio.timeout(LINGER_SECONDS):
            more = True
            while more:
                message = await receive()
                more = message["type"] == "http.request" and message.get("more_body", False)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes; send big values as files (POST /files)")


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, HEAD, OPTIONS"),
        (b"access-control-allow-headers", _ALLOW_HEADERS),
        (b"access-control-max-age", b"86400"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
