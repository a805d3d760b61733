"""What came for an instance and waits until it asks: messages and files of its client, first in, first out."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

from bakehouse.inferlets.errors import Refused

T = TypeVar("T", str, bytes)


class Room:
    """Bytes that may be kept for one instance outside its own memory, of all kinds together. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Raises `Refused` where so much more may not wait."""
        with self._lock:
            if self._used + size > self._limit:
                raise Refused(
                    f"memory: what is kept for this instance would take more than {self._limit} bytes; try again when"
                    " it has taken or released some",
                    field="memory",
                )
            self._used += size

    def give(self, size: int) -> None:
        with self._lock:
            self._used -= size


class Inbox(Generic[T]):
    """One queue, of messages or of files, and those who wait for its next item. Thread-safe."""

    def __init__(self, most: int, room: Room) -> None:
        self._most = most
        self._room = room
        self._items: deque[T] = deque()
        self._waiting: deque[Future[T]] = deque()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Raises `Refused` when the queue is full."""
        with self._lock:
            if len(self._items) >= self._most:
                raise Refused(
                    f"queue: at most {self._most} items wait for one instance; try again later", field="queue"
                )
            self._room.take(_size(item))
            self._items.append(item)
        self._hand_out()

    def receive(self) -> Future[T]:
        """The next item, which nobody else gets. Cancelled before it is there, it costs no item."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append(future)
        self._hand_out()
        return future

    def put_back(self, item: T) -> None:
        """One that was handed out, and not used, is the next again."""
        with self._lock:
            self._items.appendleft(item)
        self._hand_out()

    def used(self, item: T) -> None:
        """One that was handed out needs no room any more."""
        self._room.give(_size(item))

    def _hand_out(self) -> None:
        while True:
            with self._lock:
                while self._waiting and self._waiting[0].cancelled():
                    self._waiting.popleft()
                if not (self._items and self._waiting):
                    return
                future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                item = self._items.popleft()
            future.set_result(item)  # without the lock: it calls whoever waits


def _size(item: str | bytes) -> int:
    """In bytes."""
    return len(item) if isinstance(item, bytes) or item.isascii() else len(item.encode("utf-8", "surrogatepass"))
