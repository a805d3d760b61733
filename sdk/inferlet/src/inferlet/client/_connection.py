"""One WebSocket to a server: requests with their answers, and everything that comes unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from inferlet.client._errors import ConnectionLost, error_from
from inferlet.client._frames import MAX_FRAME, Assembly, BadFrame, chunks, encode
from inferlet.errors import HostError, LimitExceeded

if TYPE_CHECKING:
    from inferlet.client._socket import DirectConnection

PATH = "/inferlets/ws"
Handler = Callable[[dict[str, Any], bytes], None]
Lost = Callable[[HostError], None]


class Connection:
    """Made by `open`. *unasked* gets each frame that is no answer, in order, and must not block."""

    def __init__(self, socket: DirectConnection, unasked: Handler, lost: Lost) -> None:
        self._socket = socket
        self._unasked = unasked
        self._lost = lost
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._end: HostError | None = None
        self._assembly = Assembly()
        # A head and its bytes must follow each other.
        self._writing = asyncio.Lock()
        self._closing: asyncio.Future[None] | None = None
        self._watch = asyncio.ensure_future(self._until_lost())
        socket.deliver(self._frame)

    @classmethod
    async def open(cls, url: str, token: str | None, unasked: Handler, lost: Lost) -> Connection:
        """Connect to *url*. Raises `Unauthorized`, or `ConnectionLost` where nobody answers."""
        return cls(await _connect(url, token), unasked, lost)

    async def request(self, op: str, data: bytes = b"", **fields: Any) -> dict[str, Any]:
        """The result of one request; *data* follows it. Raises what the server answered, or `ConnectionLost`."""
        if self._end is not None:
            raise self._end
        self._count += 1
        number = self._count
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        frame: dict[str, Any] = {"id": number, "op": op, **fields}
        if data:
            frame["size"] = len(data)
        try:
            await self.send(frame, data)
            return await answer
        finally:
            self._answers.pop(number, None)

    async def send(self, frame: dict[str, Any], data: bytes = b"") -> None:
        """Raises `LimitExceeded` for what no frame can hold."""
        text = encode(frame)
        if len(text) * 4 > MAX_FRAME and len(text.encode()) > MAX_FRAME:
            # The server would end the connection.
            raise LimitExceeded(f"a frame has at most {MAX_FRAME} bytes, this one {len(text)} characters")
        # One write is whole by itself; only between a head and its bytes it has to wait.
        if not data and not self._writing.locked() and self._socket.write(text):
            return
        await self._send_slowly(text, data)

    async def _send_slowly(self, text: str, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            async with self._writing:
                await self._socket.send(text)
                for chunk in chunks(data):
                    await self._socket.send(chunk)
        except ConnectionClosed as error:
            raise self._end or _lost(error) from error

    async def close(self) -> None:
        await self._socket.close()
        await self._watch

    def _frame(self, frame: str | bytes) -> None:
        """One frame of the server."""
        if self._end is not None:
            return
        try:
            found = self._assembly.feed(frame)
            if found is not None:
                self._take(*found)
        except BadFrame as error:
            self._give_up(ConnectionLost(f"the server does not speak this protocol: {error}"))

    def _take(self, frame: dict[str, Any], data: bytes) -> None:
        number = frame.get("id")
        if "event" in frame or "request" in frame:
            self._unasked(frame, data)
        elif number in self._answers:
            answer = self._answers[number]
            if not answer.done():
                _settle(answer, frame)
        elif number is None and "error" in frame:
            # Not about a request: the server says why it ends the connection.
            self._give_up(error_from(frame["error"]))

    def _give_up(self, end: HostError) -> None:
        self._over(end)
        self._closing = asyncio.ensure_future(self._socket.close(1002))

    async def _until_lost(self) -> None:
        await self._socket.wait_closed()
        self._over(_lost(self._socket.protocol.close_exc))

    def _over(self, end: HostError) -> None:
        if self._end is not None:
            return
        self._end = end
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(end)
        self._lost(end)


def _settle(answer: asyncio.Future[dict[str, Any]], frame: dict[str, Any]) -> None:
    if "error" in frame:
        answer.set_exception(error_from(frame["error"]))
    else:
        answer.set_result(frame.get("result") or {})


def _lost(error: Exception | None) -> ConnectionLost:
    return ConnectionLost(f"the connection was lost: {error}")


async def _connect(url: str, token: str | None) -> DirectConnection:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    from inferlet.client._socket import DirectConnection

    address = address_of(url)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    local = urlsplit(address).hostname in ("127.0.0.1", "::1", "localhost")
    try:
        found = await connect(
            address,
            create_connection=DirectConnection,
            additional_headers=headers,
            max_size=MAX_FRAME,
            compression=None,
            # A proxy of the environment cannot reach a server of this machine.
            proxy=None if local else True,
        )
        assert isinstance(found, DirectConnection)
        return found
    except InvalidStatus as error:
        raise _refused(error.response.status_code, address, bytes(error.response.body or b"")) from error
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise ConnectionLost(f"cannot reach {address}: {error}") from error


def _refused(status: int, address: str, body: bytes) -> Exception:
    if status in (401, 403):
        code = "unauthorized" if status == 401 else "insufficient_scope"
        text = body.decode("utf-8", "replace") or "this key is not known, has expired or was revoked"
        return error_from({"code": code, "message": text})
    return ConnectionLost(f"{address} answered {status}: is it a Bakehouse server with inferlets switched on?")


def address_of(url: str) -> str:
    """*url* as a WebSocket address: ``http`` becomes ``ws``, and a missing path ours. Raises ValueError."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ValueError(f"{url!r} is no address of a server: write ws://host:port")
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))
