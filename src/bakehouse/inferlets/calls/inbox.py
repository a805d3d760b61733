"""What came for an instance and waits until it asks: messages and files of its client, first in, first out."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from bakehouse.engine.errors import Cancelled
from bakehouse.inferlets.calls.results import NOT_YET, NotYet, Wait
from bakehouse.inferlets.errors import Refused

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.waits import WaitTable

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
        self._waiting: OrderedDict[Next[T], None] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Raises `Refused` when the queue is full."""
        with self._lock:
            if len(self._items) >= self._most:
                raise Refused(
                    f"queue: at most {self._most} items wait for one instance; try again later", field="queue"
                )
            self._room.take(_size(item))
            first = self._give(item)
            if first is None:
                self._items.append(item)
        if first is not None:
            first.told()

    def receive(self, tell: Callable[[T], str]) -> Next[T]:
        """A wait for the next item, which nobody else gets. *tell* says it as text."""
        found = Next(self, tell)
        with self._lock:
            if self._items:
                found.item = self._items.popleft()
            else:
                self._waiting[found] = None
        return found

    # For its waits

    def used(self, item: T) -> None:
        """One that was handed out needs no room any more."""
        self._room.give(_size(item))

    def leave(self, who: Next[T]) -> None:
        """It waits no more. An item that it has is the next again."""
        with self._lock:
            self._waiting.pop(who, None)
            item = who.item
            first = None if item is None else self._give(item)
            if item is not None and first is None:
                self._items.appendleft(item)
        if first is not None:
            first.told()

    def _give(self, item: T) -> Next[T] | None:
        """With the lock held: who has it now, and is to be told without the lock."""
        if not self._waiting:
            return None
        first, _ = self._waiting.popitem(last=False)
        first.item = item
        return first


class Next(Wait, Generic[T]):
    """The next item of an inbox. Dropped before it is taken, it costs no item."""

    def __init__(self, inbox: Inbox[T], tell: Callable[[T], str]) -> None:
        self.item: T | None = None
        self._inbox: Inbox[T] = inbox
        self._tell: Callable[[T], str] = tell
        self._wake: Callable[[], None] | None = None
        self._taken = False

    @property
    def over(self) -> bool:
        return self._taken

    def listen(self, table: WaitTable, number: int) -> None:
        self._wake = partial(table.touch, number)
        if self.item is not None:
            table.touch(number)

    def told(self) -> None:
        """It has its item. Whoever listens later finds it."""
        if self._wake is not None:
            self._wake()

    def ready(self) -> bool:
        return self.item is not None

    def take(self) -> str | NotYet:
        if self._taken:
            raise Cancelled("its result was taken already")
        if self.item is None:
            return NOT_YET
        self._taken = True
        self._inbox.used(self.item)
        return self._tell(self.item)

    def drop(self) -> None:
        if not self._taken:
            self._taken = True
            self._inbox.leave(self)


def _size(item: str | bytes) -> int:
    """In bytes."""
    return len(item) if isinstance(item, bytes) or item.isascii() else len(item.encode("utf-8", "surrogatepass"))
