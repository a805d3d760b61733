"""What every server process needs: a socket, an event loop, uvicorn without a will of its own, and calm memory."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uvicorn
from fastapi import FastAPI

from bakehouse.core.errors import BakehouseError
from bakehouse.inferlets.talk import MAX_FRAME
from bakehouse.settings import Settings

#: Where clients have keys. By name: it needs a library that is not always there.
SOCKETS = "bakehouse.wiring.sockets:GreetingProtocol"
#: Where they need none.
OPEN_SOCKETS = "bakehouse.wiring.sockets:DirectProtocol"


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's."""
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def bind(settings: Settings) -> socket.socket:
    """A socket at the address of *settings*. Raises BakehouseError where it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise BakehouseError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port",
            code="address_in_use",
        ) from error
    return listener


def server_config(app: FastAPI, *, ws: Any, **more: Any) -> uvicorn.Config:
    """How uvicorn serves *app*; *ws* is its WebSockets' protocol, or none."""
    return uvicorn.Config(
        app,
        loop="none",
        ws=ws,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,  # it costs more than it saves where most frames are small
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        **more,
    )


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: ours drains first."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Capture none."""
        return nullcontext()


async def started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Return when it takes connections. Raises what it ended with instead."""
    while not server.started:
        if serving.done():
            serving.result()
            raise BakehouseError("the HTTP server ended while it started")
        await asyncio.sleep(0.005)  # uvicorn tells it only by this flag


def settle_memory() -> None:
    """Let the garbage collector look at what tasks leave behind, seldom, and never again at the program itself.

    A task allocates some hundred objects that reference counting frees; with the default thresholds a sixth of the
    server's processor time went into walking modules, routes and schemas that live as long as it does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
