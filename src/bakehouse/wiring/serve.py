"""A server process: bind, start, tell people where it is, serve, drain, stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence

import structlog

from bakehouse.engine.spec import ModelSpec
from bakehouse.settings import Settings
from bakehouse.wiring.home import Home
from bakehouse.wiring.http import CorkedProtocol
from bakehouse.wiring.listener import SOCKETS, Server, bind, new_loop, server_config, settle_memory, started
from bakehouse.wiring.platform import Platform

log = structlog.get_logger(__name__)


def serve(settings: Settings, models: Sequence[ModelSpec] | None = None) -> int:
    """Run a server until SIGTERM or SIGINT; the exit code. Raises Conflict when the data directory is in use.

    *models* are served instead of those that are recorded in the data directory.
    """
    from bakehouse.observe.logging import configure_logging

    configure_logging(settings.log_format, settings.log_level)
    home = Home(settings.home)
    home.lock()
    try:
        listener = bind(settings)
        port = listener.getsockname()[1]
        url = settings.model_copy(update={"port": port}).url
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_main(settings, home, listener, url, models))
    finally:
        home.unlock()


async def _main(
    settings: Settings, home: Home, listener: socket.socket, url: str, models: Sequence[ModelSpec] | None
) -> int:
    platform = Platform(settings, url, models)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await platform.start()
    settle_memory()
    try:
        sockets = SOCKETS if platform.runs_inferlets else "none"
        config = server_config(platform.app, ws=sockets, http=CorkedProtocol, backlog=2048, timeout_keep_alive=75)
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await started(server, serving)
        key = await platform.keys.first_key()
        home.write_endpoint(url, key.text if key else None, new_models=models is None and platform.node is not None)
        _announce(url, key.text if key else None, platform.not_enforced(), platform.serves())
        platform.ready = True
        await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        log.info("draining", action="drain", grace=settings.drain_grace)
        await platform.drain(settings.drain_grace)
        server.should_exit = True
        await serving
    finally:
        await platform.stop()
    log.info("stopped", action="stopped")
    return 0


def _announce(url: str, key: str | None, not_enforced: list[str], serves: list[str]) -> None:
    """Tell the person who started the server. The key is shown once: only its hash is stored."""
    print(f"Bakehouse is serving on {url}", flush=True)
    for line in serves:
        print(line, flush=True)
    if key is not None:
        print(f"Your API key (shown once, admin of owner 'local'): {key}", flush=True)
        print(f"\n  export INFERENCE_BASE_URL={url}\n  export INFERENCE_API_KEY={key}\n", flush=True)
    for line in not_enforced:
        print(f"not enforced on this machine: {line}", file=sys.stderr, flush=True)
