"""The one thing that programs wait with: a result that will be there later has a number, and `take` gives it."""

from __future__ import annotations

from inferlet._host import host


def take(wait: int, *, keep: bool = False) -> str | None:
    """The result of *wait*; of a stream the next item, or None at its end.

    Interrupted, it gives the result up, unless *keep*: then it can be taken later.
    """
    waits = host().waits
    try:
        return waits.take(wait)
    except KeyboardInterrupt:
        if not keep:
            waits.drop(wait)
        raise


def result(wait: int) -> str:
    """The result of a future."""
    found = take(wait)
    if found is None:
        raise RuntimeError("the host ended a result without giving it")
    return found
