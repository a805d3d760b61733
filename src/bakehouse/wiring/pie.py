"""`pie serve`: keys, an engine, an inferlet host and the WebSocket to it, in one process."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from bakehouse.api.common import problem
from bakehouse.api.common.envelope import JsonReply
from bakehouse.api.inferlets import Inferlets, Link, router
from bakehouse.api.inferlets.base import Frame
from bakehouse.core.clock import SystemClock
from bakehouse.core.errors import Invalid, TooMany, Unauthorized
from bakehouse.core.identity import SCOPES, Caller
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.dialogue import MAX_FRAME, Desk, Dialogue, Who
from bakehouse.inferlets.processes import Processes
from bakehouse.service.keys import FIRST_OWNER, Keys
from bakehouse.settings import Settings, is_loopback
from bakehouse.store import open_store
from bakehouse.wiring.home import Home
from bakehouse.wiring.listener import Server, bind, new_loop, started
from bakehouse.wiring.local import FOLDER, Local, local_host

log = structlog.get_logger(__name__)

#: Connections at one time: of one owner, and in all.
MOST_OF_OWNER, MOST = 64, 1024


def serve(settings: Settings, specs: Sequence[ModelSpec], *, no_auth: bool = False) -> int:
    """Run until SIGTERM or SIGINT; the exit code.

    Raises Conflict when the data directory is in use, Invalid where other machines could reach a server without keys.
    """
    from bakehouse.observe.logging import configure_logging

    if no_auth and not is_loopback(settings.host):
        raise Invalid(f"--no-auth: {settings.host} can be reached by other machines; they must show a key")
    configure_logging(settings.log_format, settings.log_level)
    home = Home(settings.home)
    home.lock()
    try:
        listener = bind(settings)
        url = settings.model_copy(update={"port": listener.getsockname()[1]}).url
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_main(settings, specs, home, listener, url, no_auth))
    finally:
        home.unlock()


async def _main(
    settings: Settings, specs: Sequence[ModelSpec], home: Home, listener: socket.socket, url: str, no_auth: bool
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _keys(settings) as keys, local_host(specs, settings.home / FOLDER) as local:
        server = Server(_config(_app(PieInferlets(desk_of(local), None if no_auth else keys), url)))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await started(server, serving)
        key = None if no_auth else await keys.first_key()
        home.write_endpoint(url, key.text if key else None)
        _announce(url, key.text if key else None, [spec.name for spec in specs], no_auth)
        await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping", action="drain")
        server.should_exit = True
        await serving
    return 0


@asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[Keys]:
    store = open_store(settings.database)
    await store.open()
    try:
        yield Keys(store, SystemClock())
    finally:
        await store.close()


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,  # it costs more than it saves where most frames are small
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _app(inferlets: Inferlets, url: str) -> FastAPI:
    app = FastAPI(title="Pie", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.inferlets = inferlets
    app.state.public_url = url
    problem.install(app)
    app.include_router(router)

    async def ready() -> JsonReply:
        return JsonReply(b'{"status":"ready"}')

    app.add_api_route("/ready", ready)
    return app


def _announce(url: str, key: str | None, models: list[str], no_auth: bool) -> None:
    """Tell the person who started it. The key is shown once: only its hash is stored."""
    print(f"Pie is serving {', '.join(models)} on {url.replace('http', 'ws', 1)}", flush=True)
    if no_auth:
        print("Everybody on this machine may use it: it asks for no key.", flush=True)
    elif key is not None:
        print(f"Your API key (shown once, admin of owner 'local'): {key}", flush=True)


def desk_of(local: Local) -> Desk:
    """What dialogues with clients of *local* stand on."""
    return Desk(Processes(local.host), local.programs, local.relays)


class PieInferlets(Inferlets):
    """Dialogues in this process. Without *keys* everybody is the owner ``local``."""

    def __init__(self, desk: Desk, keys: Keys | None) -> None:
        self.open_to_all = keys is None
        self._desk, self._keys = desk, keys
        self._open: Counter[str] = Counter()

    async def authenticate(self, token: str | None) -> Caller:
        if self._keys is None:
            return Caller(FIRST_OWNER, FIRST_OWNER, FIRST_OWNER, "none", frozenset(SCOPES))
        if token is None:
            raise Unauthorized("send an API key as: Authorization: Bearer <key>")
        caller = await self._keys.authenticate(token)
        caller.need("run")
        return caller

    async def open(self, caller: Caller) -> Link:
        owner = caller.owner_name
        if self._open[owner] >= MOST_OF_OWNER or self._open.total() >= MOST:
            raise TooMany(f"an owner may have {MOST_OF_OWNER} connections at one time, all together {MOST}")
        self._open[owner] += 1
        return _Counted(Dialogue(self._desk, Who(owner, owner, caller.scopes)), self._open, owner)


class _Counted(Link):
    """A dialogue that gives its owner's place back at its end."""

    def __init__(self, dialogue: Dialogue, places: Counter[str], owner: str) -> None:
        self._dialogue = dialogue
        self._places, self._owner = places, owner
        self._closed = False

    async def feed(self, frame: Frame) -> None:
        await self._dialogue.feed(frame)

    async def take(self) -> list[Frame]:
        return await self._dialogue.take()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._places[self._owner] -= 1
            await self._dialogue.close()
