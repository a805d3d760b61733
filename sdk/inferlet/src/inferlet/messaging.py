# Written by scripts/unasync.py from aio/messaging.py: change that one.
"""Between the programs of one owner: queues, and broadcasts to whoever listens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from inferlet._host import host
from inferlet._waits import Turn, result, take
from inferlet.errors import HostError

if TYPE_CHECKING:
    from typing_extensions import Self


def push(topic: str, message: str) -> None:
    """Put *message* at the end of the queue of *topic*. It stays there until somebody pulls it.

    Raises `LimitExceeded` for a message that is too long, or a queue that is full.
    """
    host().messaging.push(topic, message)


def pull(topic: str) -> str:
    """The next message of the queue, which nobody else gets; who waits longest is served first. Waits for ever."""
    found = host()
    return result(found, found.messaging.pull(topic))


def broadcast(topic: str, message: str) -> None:
    """To everybody who is subscribed to *topic* now. Raises `LimitExceeded` for a message that is too long."""
    host().messaging.broadcast(topic, message)


def subscribe(topic: str) -> Subscription:
    """What is broadcast on *topic* from now on."""
    return Subscription(topic)


class Subscription:
    """Messages without an end. 64 wait for a reader that is slow; it misses further ones, and is not told."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._turn = Turn()
        self._host = host()
        self._wait: int | None = self._host.messaging.subscribe(topic)

    def next(self) -> str:
        """The next message. Raises `RuntimeError` after `unsubscribe`, also of who waits then."""
        message = self._next()
        if message is None:
            raise RuntimeError(f"this subscription to {self.topic!r} has ended")
        return message

    def _next(self) -> str | None:
        with self._turn:
            if self._wait is None:
                return None
            try:
                return take(self._host, self._wait, keep=True)
            except HostError:
                ended = self._wait is None
                if ended:  # Somebody else did that meanwhile.
                    return None
                raise

    def unsubscribe(self) -> None:
        """Listen no more. May be repeated."""
        wait, self._wait = self._wait, None
        if wait is not None:
            self._host.waits.drop(wait)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        message = self._next()
        if message is None:
            raise StopIteration
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unsubscribe()

    def __del__(self) -> None:
        # Where the host is gone, or the constructor failed, there is nothing to end.
        with contextlib.suppress(Exception):
            self.unsubscribe()
