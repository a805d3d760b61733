"""`pie serve`: keys, an engine, an inferlet host and the WebSocket to it, in one process."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
from fastapi import FastAPI

from bakehouse.api.common import problem
from bakehouse.api.common.envelope import JsonReply
from bakehouse.api.inferlets import PATH, Inferlets, Link, router
from bakehouse.core.clock import SystemClock
from bakehouse.core.errors import Invalid, NotFound, Unavailable
from bakehouse.core.identity import Caller
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.dialogue import Desk, LocalDialogue, Who
from bakehouse.inferlets.processes import Processes
from bakehouse.service.keys import Keys
from bakehouse.settings import Settings, is_loopback
from bakehouse.store import open_store
from bakehouse.wiring.chosen import FOLDER, instance_limits, owner_limits
from bakehouse.wiring.dialogues import KeyedInferlets
from bakehouse.wiring.home import Home
from bakehouse.wiring.listener import (
    OPEN_SOCKETS,
    SOCKETS,
    Server,
    bind,
    new_loop,
    server_config,
    settle_memory,
    started,
)
from bakehouse.wiring.local import Local, local_host, mcp_servers
from bakehouse.wiring.monitor import monitor
from bakehouse.wiring.watching import watching

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `serve` is to do. *new_models*: those that are recorded meanwhile are served too; *monitored*: what runs is
    shown on stderr."""

    no_auth: bool = False
    new_models: bool = False
    monitored: bool = False


def serve(settings: Settings, specs: Sequence[ModelSpec], wanted: Wanted) -> int:
    """Run until SIGTERM or SIGINT; the exit code.

    Raises Conflict when the data directory is in use, Invalid where other machines could reach a server without keys.
    """
    from bakehouse.observe.logging import configure_logging

    if wanted.no_auth and not is_loopback(settings.host):
        raise Invalid(f"--no-auth: {settings.host} can be reached by other machines; they must show a key")
    configure_logging(settings.log_format, settings.log_level)
    home = Home(settings.home)
    home.lock()
    try:
        listener = bind(settings)
        url = settings.model_copy(update={"port": listener.getsockname()[1]}).url
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_main(settings, specs, home, listener, url, wanted))
    finally:
        home.unlock()


async def _main(
    settings: Settings,
    specs: Sequence[ModelSpec],
    home: Home,
    listener: socket.socket,
    url: str,
    wanted: Wanted,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(_keys(settings))
        local = await stack.enter_async_context(_host(settings, specs))
        if wanted.new_models:
            say = partial(log.info, action="model_added")
            await stack.enter_async_context(watching(settings.home, local.engine, say))
        if wanted.monitored:
            showing = asyncio.create_task(monitor(local, partial(print, file=sys.stderr, flush=True)))
            stack.callback(showing.cancel)
        desk = Desk(Processes(local.host), local.programs, local.relays, instance_limits(settings))
        app = _app(PieInferlets(desk, keys, await keys.operator() if wanted.no_auth else None), url)
        server = Server(server_config(app, ws=OPEN_SOCKETS if wanted.no_auth else SOCKETS))
        settle_memory()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await started(server, serving)
        key = None if wanted.no_auth else await keys.first_key()
        home.write_endpoint(url, key.text if key else None, new_models=wanted.new_models)
        _announce(url, key.text if key else None, [spec.name for spec in specs], wanted.no_auth)
        app.state.announced = True
        await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping", action="drain")
        server.should_exit = True
        await serving
    return 0


def _host(settings: Settings, specs: Sequence[ModelSpec]) -> AbstractAsyncContextManager[Local]:
    """With the limits and the MCP servers that `bakehouse serve` has too."""
    return local_host(
        specs,
        settings.home / FOLDER,
        limits=owner_limits(settings),
        most=settings.inferlet_instances,
        mcp=mcp_servers(settings),
    )


@asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[Keys]:
    store = open_store(settings.database)
    await store.open()
    try:
        yield Keys(store, SystemClock())
    finally:
        await store.close()


def _app(inferlets: Inferlets, url: str) -> FastAPI:
    app = FastAPI(title="Pie", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.inferlets = inferlets
    app.state.public_url = url
    app.state.announced = False
    problem.install(app)
    app.include_router(router)

    async def ready() -> JsonReply:
        if not app.state.announced:
            raise Unavailable("this server is starting")
        return JsonReply(b'{"status":"ready","apps":false}')

    async def elsewhere(path: str) -> JsonReply:
        raise NotFound(
            f"there is no /{path} here: `pie serve` has programs, over the WebSocket at {PATH}; "
            "apps and tasks are what `bakehouse serve` has"
        )

    app.add_api_route("/ready", ready)
    app.add_api_route("/{path:path}", elsewhere, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    return app


def _announce(url: str, key: str | None, models: list[str], no_auth: bool) -> None:
    """Tell the person who started it. The key is shown once: only its hash is stored."""
    print(f"Pie is serving {', '.join(models)} on {url.replace('http', 'ws', 1)}", flush=True)
    if no_auth:
        print("Everybody on this machine may use it: it asks for no key.", flush=True)
    elif key is not None:
        print(f"Your API key (shown once, admin of owner 'local'): {key}", flush=True)


class PieInferlets(KeyedInferlets):
    """Dialogues in this process."""

    def __init__(self, desk: Desk, keys: Keys, everybody: Caller | None) -> None:
        super().__init__(keys, everybody)
        self._desk = desk

    async def _link(self, caller: Caller) -> Link:
        return LocalDialogue(self._desk, Who(caller.owner_id, caller.owner_name, caller.scopes))
