"""One client of a running server, for the time of a command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from bakehouse.cli.endpoint import find_server
from bakehouse.cli.failures import Exit, Failure

if TYPE_CHECKING:
    from inferlet.client import Client

T = TypeVar("T")


def talk(url: str | None, key: str | None, home: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do *work* with a client of the server that the options name. Raises Failure for what the server refuses."""
    from inferlet.errors import HostError

    async def run() -> T:
        async with _client(url, key, home) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except HostError as error:
        unreachable = error.code in ("connection_lost", "unauthorized", "insufficient_scope")
        raise Failure(str(error), Exit.UNREACHABLE if unreachable else Exit.USAGE) from error


@asynccontextmanager
async def _client(url: str | None, key: str | None, home: Path | None) -> AsyncIterator[Client]:
    from inferlet.client import connect

    address, token = find_server(url, key, home)
    async with connect(address, token=token) as client:
        yield client
