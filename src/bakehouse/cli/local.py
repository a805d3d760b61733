"""Work on a data directory's store without the server; a server may run on it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from bakehouse.settings import Settings

if TYPE_CHECKING:
    from bakehouse.store.base import Store

Result = TypeVar("Result")


def on_store(settings: Settings, work: Callable[[Store], Awaitable[Result]]) -> Result:
    """Open the store (which brings its schema up to date), do *work*, close it. Raises BakehouseError."""

    # Imported here, because it loads SQLAlchemy, which most commands do without.
    from bakehouse.store import open_store

    async def run() -> Result:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = open_store(settings.database)
        try:
            await store.open()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
