"""Where this program runs, and other programs beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from inferlet._host import host
from inferlet.aio._waits import result


def version() -> str:
    """Of the runtime: three numbers, ``1.2.3``."""
    return host().runtime.version()


def models() -> list[str]:
    """The names that `Model.load` takes."""
    found: list[str] = json.loads(host().models.names())
    return found


def username() -> str:
    """Who launched this program."""
    return host().runtime.username()


def instance_id() -> str:
    """Of this one run of the program: text that no other run has."""
    return host().runtime.instance_id()


def limits() -> dict[str, float]:
    """What this run may use at most, by the names of the limits: bytes, seconds or counts."""
    found: dict[str, float] = json.loads(host().runtime.limits())
    return found


async def spawn(package: str, args: Sequence[str] | None = None) -> str:
    """Run *package*, ``name@1.2.3``, with *args*: its result.

    The child belongs to the same owner, has no client, and ends with this program. `NotFound` where it is not
    installed, `LimitExceeded` over a limit of children, `SpawnFailed` with its text where it ends with an error.
    """
    if isinstance(args, str):
        raise TypeError(f"args is a list of texts: [{args!r}]")
    found = host()
    return await result(found, found.runtime.spawn(package, json.dumps(list(args or ()))))
