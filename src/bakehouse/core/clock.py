"""Time as integer microseconds since 1970 in UTC, from one injected clock.

Leases do not use this clock: they compare against the database's own (see ``store``).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

SECOND = 1_000_000
"""Microseconds in a second."""


class Clock(Protocol):
    """Where the platform reads the time."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; its zero means nothing."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(micros: int) -> str:
    """*micros* as an RFC 3339 timestamp, such as ``2026-01-02T03:04:05.678901Z``."""
    seconds, rest = divmod(micros, SECOND)
    return f"{_to_the_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=256)
def _to_the_second(seconds: int) -> str:
    # Every answer tells times, and most of them are of the same few seconds.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
