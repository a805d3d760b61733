"""The two drivers: they carry out what flows ask for, and decide nothing."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from inferencesh._errors import ConnectionFailed
from inferencesh._flow import Call, Close, Emit, Flow, Op, Open, Read, Reply, Request, Send, Sleep, Source, Steps
from inferencesh._models import Task

T = TypeVar("T")

PIECE = 256 * 1024
"""Bytes of a file that are read at a time."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@contextmanager
def mapped(target: str) -> Iterator[None]:
    """Everything that httpx raises becomes ConnectionFailed; *target* is the URL that was asked."""
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, httpx.CookieConflict) as error:
        reason = str(error) or type(error).__name__
        raise ConnectionFailed(_explain(target, reason, error), unsent=isinstance(error, UNSENT)) from error


def _explain(target: str, reason: str, error: Exception) -> str:
    if isinstance(error, UNSENT):
        return (
            f"could not reach {target}: {reason}. Is the server running (`bakehouse serve`), and is base_url= or "
            "INFERENCE_BASE_URL right?"
        )
    return f"the connection to {target} broke: {reason}"


def _arguments(request: Request) -> dict[str, Any]:
    timeout = httpx.Timeout(request.timeout, connect=min(10.0, request.timeout))
    return {"method": request.method, "url": request.url, "headers": request.headers, "timeout": timeout}


def _reply(response: httpx.Response, body: bytes = b"") -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


class _Link:
    """The open stream of one flow. Bytes that came in one piece but are over the limit of a read wait here."""

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.pieces: Any = None
        self.rest = b""
        self.target = ""

    def take(self, limit: int) -> bytes:
        piece, self.rest = self.rest[:limit], self.rest[limit:]
        return piece

    def reset(self, response: httpx.Response | None, pieces: Any, target: str) -> None:
        self.response, self.pieces, self.target, self.rest = response, pieces, target, b""


class SyncDriver:
    """Carries flows out with blocking I/O. May be used by several threads at once."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(transport=transport)

    def run(self, flow: Flow[T]) -> T:
        """Carry *flow* out; what it emits goes nowhere."""
        steps = Steps(flow)
        for _ in self.iterate(steps):
            continue
        return steps.value

    def iterate(self, steps: Steps[T]) -> Generator[Task, None, None]:
        """Carry a flow out and hand over what it emits."""
        link = _Link()
        try:
            for op in steps:
                if isinstance(op, Emit):
                    yield op.update
                    continue
                try:
                    steps.reply(self._perform(op, link))
                except ConnectionFailed as error:
                    steps.fail(error)
        finally:
            steps.close()
            self._close(link)

    def close(self) -> None:
        self._http.close()

    def _perform(self, op: Op, link: _Link) -> Any:
        if isinstance(op, Send):
            with mapped(op.request.url):
                response = self._http.request(**_arguments(op.request), content=_blocking(op.request.content))
                return _reply(response, response.content)
        if isinstance(op, Read):
            return self._read(op.limit, link)
        if isinstance(op, Open):
            return self._open(op.request, link)
        if isinstance(op, Close):
            return self._close(link)
        if isinstance(op, Sleep):
            return time.sleep(op.seconds)
        assert isinstance(op, Call)
        answer = op.function(op.update)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("on_update is a coroutine function; that needs AsyncInference")
        return None

    def _open(self, request: Request, link: _Link) -> Reply:
        self._close(link)
        with mapped(request.url):
            response = self._http.send(self._http.build_request(**_arguments(request)), stream=True)
        link.reset(response, response.iter_bytes(), request.url)
        return _reply(response)

    def _read(self, limit: int, link: _Link) -> bytes:
        if not link.rest:
            with mapped(link.target):
                link.rest = next(filter(None, link.pieces), b"")
        return link.take(limit)

    def _close(self, link: _Link) -> None:
        response = link.response
        link.reset(None, None, "")
        if response is not None:
            with mapped("the stream"):
                response.close()


class AsyncDriver:
    """Carries flows out on asyncio. May be used from several event loops, one after another."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        """Carry *flow* out; what it emits goes nowhere."""
        return self._run(Steps(flow))

    async def _run(self, steps: Steps[T]) -> T:
        async for _ in self.iterate(steps):
            continue
        return steps.value

    async def iterate(self, steps: Steps[T]) -> AsyncGenerator[Task, None]:
        """Carry a flow out and hand over what it emits."""
        link = _Link()
        try:
            for op in steps:
                if isinstance(op, Emit):
                    yield op.update
                    continue
                try:
                    steps.reply(await self._perform(op, link))
                except ConnectionFailed as error:
                    steps.fail(error)
        finally:
            steps.close()
            await self._close(link)

    async def close(self) -> None:
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()
        self._http = None

    def _client(self) -> httpx.AsyncClient:
        # Connections belong to the loop that opened them: a client that outlives `asyncio.run` starts afresh.
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._http, self._loop = httpx.AsyncClient(transport=self._transport), loop
        return self._http

    async def _perform(self, op: Op, link: _Link) -> Any:
        if isinstance(op, Send):
            with mapped(op.request.url):
                response = await self._client().request(**_arguments(op.request), content=_threaded(op.request.content))
                return _reply(response, response.content)
        if isinstance(op, Read):
            return await self._read(op.limit, link)
        if isinstance(op, Open):
            return await self._open(op.request, link)
        if isinstance(op, Close):
            return await self._close(link)
        if isinstance(op, Sleep):
            return await asyncio.sleep(op.seconds)
        assert isinstance(op, Call)
        answer = op.function(op.update)
        return await answer if inspect.isawaitable(answer) else None

    async def _open(self, request: Request, link: _Link) -> Reply:
        await self._close(link)
        client = self._client()
        with mapped(request.url):
            response = await client.send(client.build_request(**_arguments(request)), stream=True)
        link.reset(response, response.aiter_bytes(), request.url)
        return _reply(response)

    async def _read(self, limit: int, link: _Link) -> bytes:
        if not link.rest:
            with mapped(link.target):
                link.rest = await _next_piece(link.pieces)
        return link.take(limit)

    async def _close(self, link: _Link) -> None:
        response = link.response
        link.reset(None, None, "")
        if response is not None:
            with mapped("the stream"):
                await response.aclose()


async def _next_piece(pieces: AsyncIterator[bytes]) -> bytes:
    async for piece in pieces:
        if piece:
            return piece
    return b""


def _blocking(content: bytes | Source | None) -> bytes | Iterator[bytes] | None:
    if content is None or isinstance(content, bytes):
        return content
    return _pieces(content)


def _pieces(source: Source) -> Iterator[bytes]:
    with source.open() as file:
        piece = file.read(PIECE)
        while piece:
            yield piece
            piece = file.read(PIECE)


def _threaded(content: bytes | Source | None) -> bytes | AsyncIterator[bytes] | None:
    if content is None or isinstance(content, bytes):
        return content
    return _pieces_threaded(content)


async def _pieces_threaded(source: Source) -> AsyncIterator[bytes]:
    with source.open() as file:
        piece = await asyncio.to_thread(file.read, PIECE)
        while piece:
            yield piece
            piece = await asyncio.to_thread(file.read, PIECE)
