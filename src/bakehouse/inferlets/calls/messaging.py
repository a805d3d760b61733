"""Topics of the instance's owner."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.inbox import Room
from bakehouse.inferlets.calls.results import NOT_YET, NotYet, Once, Wait
from bakehouse.inferlets.calls.waits import WaitTable
from bakehouse.inferlets.errors import Refused
from bakehouse.inferlets.messaging import BACKLOG, check_topic

#: Starts a subscription: it calls what it is given with each message, and returns what ends it.
Subscribe = Callable[[Callable[[str], bool]], Callable[[], None]]


class Feed(Wait):
    """What is broadcast on one topic, without an end. A reader that is too slow misses what there is no room for."""

    is_stream = True

    def __init__(self, subscribe: Subscribe, room: Room) -> None:
        self._room = room
        self._items: deque[str] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._news: Callable[[], None] = lambda: None
        self._stop = subscribe(self._put)

    def _put(self, text: str) -> bool:
        """Whether there was room."""
        with self._lock:
            if self._closed:
                return True
            if len(self._items) >= BACKLOG:
                return False
            try:
                self._room.take(len(text))
            except Refused:
                return False
            self._items.append(text)
        self._news()
        return True

    @property
    def over(self) -> bool:
        return self._closed

    def listen(self, table: WaitTable, number: int) -> None:
        self._news = lambda: table.touch(number)
        if self.ready():
            table.touch(number)

    def ready(self) -> bool:
        return bool(self._items) or self._closed

    def take(self) -> str | NotYet | None:
        with self._lock:
            if self._items:
                text = self._items.popleft()
                self._room.give(len(text))
                return text
        return None if self._closed else NOT_YET

    def drop(self) -> None:
        with self._lock:
            closed, self._closed = self._closed, True
            while self._items:
                self._room.give(len(self._items.popleft()))
        if not closed:
            self._stop()


class Messaging(Interface):
    def push(self, topic: str, message: str) -> None:
        guest = self._guest
        guest.services.messaging.push(guest.launch.owner, check_topic(topic), self._text(message))

    def pull(self, topic: str) -> int:
        guest = self._guest
        owner, name, messaging = guest.launch.owner, check_topic(topic), guest.services.messaging
        return guest.waits.add(
            lambda: Once(
                messaging.pull(owner, name),
                str,
                # One that came and was not taken goes to somebody else, behind those that wait.
                undo=lambda message: messaging.push(owner, name, message),
            )
        )

    def broadcast(self, topic: str, message: str) -> None:
        guest = self._guest
        guest.services.messaging.broadcast(guest.launch.owner, check_topic(topic), self._text(message))

    def subscribe(self, topic: str) -> int:
        guest = self._guest
        owner, name, messaging = guest.launch.owner, check_topic(topic), guest.services.messaging

        def subscribe(call: Callable[[str], bool]) -> Callable[[], None]:
            return messaging.subscribe(owner, name, call)

        return guest.waits.add(lambda: Feed(subscribe, guest.room))

    def _text(self, message: str) -> str:
        return check_size("message", message, self._guest.limits.message, "a message")
