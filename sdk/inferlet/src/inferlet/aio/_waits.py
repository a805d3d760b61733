"""What `inferlet._waits` is, for programs on an event loop: other tasks go on meanwhile."""

from __future__ import annotations

from inferlet._async import ready
from inferlet._host import host


async def take(wait: int, *, keep: bool = False) -> str | None:
    """The result of *wait*; of a stream the next item, or None at its end.

    Cancelled, it gives the result up, unless *keep*: then it can be taken later.
    """
    waits = host().waits
    try:
        await ready(wait)
    except BaseException:
        if not keep:
            waits.drop(wait)
        raise
    return waits.take(wait)


async def result(wait: int) -> str:
    """The result of a future."""
    found = await take(wait)
    if found is None:
        raise RuntimeError("the host ended a result without giving it")
    return found
