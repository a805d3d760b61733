"""The one thing that programs wait with: a result that will be there later has a number, and `take` gives it."""

from __future__ import annotations

from threading import RLock

from inferlet._host import Host

#: Held while an item of a stream is waited for and taken: the next one is for the next thread, where there are some.
Turn = RLock


def take(host: Host, wait: int, *, keep: bool = False) -> str | None:
    """The result of *wait*; of a stream the next item, or None at its end.

    Interrupted, it gives the result up, unless *keep*: then it can be taken later.
    """
    try:
        return host.waits.take(wait)
    except KeyboardInterrupt:
        if not keep:
            host.waits.drop(wait)
        raise


def result(host: Host, wait: int) -> str:
    """The result of a future."""
    found = take(host, wait)
    if found is None:
        raise RuntimeError("the host ended a result without giving it")
    return found
