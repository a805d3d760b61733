"""What `pie serve --monitor` shows: a line for a person, when something has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bakehouse.wiring.local import Local

SECONDS = 1.0


async def monitor(local: Local, say: Callable[[str], None]) -> None:
    """Never returns. *say* is told what runs, once a second at most."""
    before, ran = "", await _ran(local)
    while True:
        await asyncio.sleep(SECONDS)
        earlier, ran = ran, await _ran(local)
        models = [await _model(local, name, tokens - earlier.get(name, 0.0)) for name, tokens in ran.items()]
        line = "; ".join([_instances(local), *models])
        if line != before:
            say(line)
        before = line


async def _ran(local: Local) -> dict[str, float]:
    """Tokens that each model has run since its start."""
    return {info.name: (await local.engine.stats(info.name))["rows"] for info in local.engine.served()}


def _instances(local: Local) -> str:
    told = local.host.stats()
    return f"instances: {told['instances']} run, {told['launched']} launched"


async def _model(local: Local, name: str, tokens: float) -> str:
    told = await local.engine.stats(name)
    pages = f"{told['pages_held']} of {told['pages_total']} pages"
    return f"{name}: {tokens / SECONDS:.0f} tokens/s, {told['contexts']} contexts, {pages}"
