"""A model that is recorded while an engine runs is served by it too. Replaced and removed ones wait for a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bakehouse.core.errors import BakehouseError
from bakehouse.engine.errors import EngineError
from bakehouse.engine.handle import Engine
from bakehouse.wiring.models import Models

LOOK_SECONDS = 1.0


@asynccontextmanager
async def watching(home: Path, engine: Engine, say: Callable[[str], None]) -> AsyncIterator[None]:
    """*engine* serves what is recorded in *home*, now and as long as this lasts; *say* is told what became of each."""
    watch = _Watch(Models(home), engine, say)
    await watch.look()
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Watch:
    def __init__(self, models: Models, engine: Engine, say: Callable[[str], None]) -> None:
        self._models, self._engine, self._say = models, engine, say
        #: When those were written that cannot be served: each is left alone until it changes.
        self._left_alone: dict[str, int] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        served = {info.name for info in self._engine.served()}
        for name, changed in self._models.changes().items():
            if name in served or self._left_alone.get(name) == changed:
                continue
            try:
                await self._engine.add(self._models.get(name))
            except Exception as error:
                # Also a fault of a library that loads it: nobody is above this, and others are still to be served.
                self._left_alone[name] = changed
                self._say(f"the model {name} cannot be served: {_told(error)}")
            else:
                self._say(f"the model {name} is served now")


def _told(error: Exception) -> str:
    return error.detail if isinstance(error, BakehouseError | EngineError) else f"{type(error).__name__}: {error}"
