"""``/inferlets/ws``: `docs/inferlet-protocol.md` is its page."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from bakehouse.api.common import problem
from bakehouse.api.inferlets.base import WIRE, Inferlets
from bakehouse.core.errors import BakehouseError, Forbidden, Unauthorized
from bakehouse.core.identity import Caller
from bakehouse.inferlets.talk import Wire

PATH = "/inferlets/ws"
#: Seconds for a client without a header to say who it is.
HELLO_SECONDS = 10.0
#: Between two looks whether the key of an open connection is good still.
WATCH_SECONDS = 2.0
#: Close codes of ours: the key is not good; the server has no room.
UNAUTHORIZED, BUSY = 4401, 4429

_MISSING = "send an API key, as a header Authorization: Bearer <key> or as the token of a first hello"

router = APIRouter()


@router.websocket(PATH)
async def talk(socket: WebSocket) -> None:
    """One client, from its upgrade to its end."""
    inferlets: Inferlets = socket.app.state.inferlets
    token = bearer(socket.headers)
    try:
        if inferlets.open_to_all:
            _check_origin(socket)
        caller = await inferlets.authenticate(token) if token or inferlets.open_to_all else None
    except BakehouseError as error:
        await socket.send_denial_response(_refusal(socket, error))
        return
    await socket.accept()
    try:
        first: str | None = None
        if caller is None:
            caller, token, first = await _greeted(socket, inferlets)
        link = await inferlets.open(caller)
    except BakehouseError as error:
        await _leave(socket, error)
    except WebSocketDisconnect:
        return
    else:
        wire: Wire = socket.scope["extensions"][WIRE]
        watching = asyncio.create_task(_watch(inferlets, token, wire))
        try:
            await link.talk(wire, first)
        finally:
            watching.cancel()


def bearer(headers: Headers) -> str | None:
    """The key that *headers* name; None where they name none."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() or None if scheme.lower() == "bearer" else None


def _check_origin(socket: WebSocket) -> None:
    """Any page in a browser may connect to this machine; the browser says whose it is. Raises `Forbidden`."""
    origin = socket.headers.get("origin")
    if origin is not None and not _is_local(urlsplit(origin).hostname or ""):
        raise Forbidden(f"pages of {origin} may not use a server that asks for no key")


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(socket: WebSocket, error: BakehouseError) -> Response:
    base = getattr(socket.app.state, "public_url", "")
    return Response(
        orjson.dumps(problem.problem_body(error, base)), error.status, media_type="application/problem+json"
    )


async def _greeted(socket: WebSocket, inferlets: Inferlets) -> tuple[Caller, str, str]:
    """Whom the first frame says, its key, and that frame without it. Raises `Unauthorized`, `TooMany`."""
    with inferlets.knock():
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                frame = orjson.loads(await socket.receive_text())
            if not isinstance(frame, dict) or frame.get("op") != "hello" or not isinstance(frame.get("token"), str):
                raise Unauthorized(_MISSING)
        except (TimeoutError, KeyError, orjson.JSONDecodeError) as error:
            raise Unauthorized(_MISSING) from error
        token = frame.pop("token")
        return await inferlets.authenticate(token), token, orjson.dumps(frame).decode()


async def _watch(inferlets: Inferlets, token: str | None, wire: Wire) -> None:
    """End the connection when its key is no good any more."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            await inferlets.authenticate(token)
        except (Unauthorized, Forbidden) as error:
            wire.write(_told(error))
            await wire.end(UNAUTHORIZED, error.code)
            return
        except BakehouseError:
            continue  # nobody can say now whether it is good; HTTP requests are refused meanwhile


async def _leave(socket: WebSocket, error: BakehouseError) -> None:
    """Say why, and end the connection."""
    with suppress(WebSocketDisconnect):  # it has left already
        await socket.send_text(_told(error))
        await socket.close(UNAUTHORIZED if error.status in (401, 403) else BUSY, error.code)


def _told(error: BakehouseError) -> str:
    return orjson.dumps({"id": None, "error": {"code": error.code, "message": error.detail}}).decode()
