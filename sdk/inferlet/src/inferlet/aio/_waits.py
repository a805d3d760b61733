"""What `inferlet._waits` is, for programs on an event loop: other tasks go on meanwhile."""

from __future__ import annotations

import asyncio

from inferlet._async import ready
from inferlet._host import Host

#: Held while an item of a stream is waited for and taken: the next one is for the next task.
Turn = asyncio.Lock


async def take(host: Host, wait: int, *, keep: bool = False) -> str | None:
    """The result of *wait*; of a stream the next item, or None at its end.

    Cancelled, it gives the result up, unless *keep*: then it can be taken later.
    """
    try:
        await ready(host, wait)
    except BaseException:
        if not keep:
            host.waits.drop(wait)
        raise
    return host.waits.take(wait)


async def result(host: Host, wait: int) -> str:
    """The result of a future."""
    found = await take(host, wait)
    if found is None:
        raise RuntimeError("the host ended a result without giving it")
    return found
