"""Waiting for a condition, with a deadline and a useful message; the only polling in the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, timeout: float = 20.0, every: float = 0.02) -> T:
    """Return the first truthy value of *condition*; raise TimeoutError naming *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last value: {value!r}")
        pause.wait(every)
