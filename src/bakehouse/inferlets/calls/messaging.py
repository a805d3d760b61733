"""Topics of the instance's owner."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.inbox import Room
from bakehouse.inferlets.calls.results import NOT_YET, NotYet, Once, Wait
from bakehouse.inferlets.calls.waits import WaitTable
from bakehouse.inferlets.errors import InferletError, Refused

#: Characters of a topic's name.
MAX_TOPIC = 1024

#: Starts a subscription: it calls what it is given with each message, and returns what ends it.
Subscribe = Callable[[Callable[[str], None]], Callable[[], None]]


class Feed(Wait):
    """What is broadcast on one topic. It has no end, but for a reader that is too slow: that is told what it missed."""

    is_stream = True

    def __init__(self, subscribe: Subscribe, most: int, room: Room) -> None:
        self._most = most
        self._room = room
        self._items: deque[str] = deque()
        self._error: InferletError | None = None
        self._told = self._closed = False
        self._lock = threading.Lock()
        self._news: Callable[[], None] = lambda: None
        self._stop = subscribe(self._put)

    def _put(self, text: str) -> None:
        with self._lock:
            if self._closed or self._error is not None:
                return
            try:
                if len(self._items) >= self._most:
                    raise Refused(f"queue: at most {self._most} messages wait for one subscription", field="queue")
                self._room.take(len(text))
                self._items.append(text)
            except Refused as error:
                self._error = Refused(f"{error.detail}; what came later is lost, subscribe anew", field=error.field)
        self._news()

    @property
    def over(self) -> bool:
        return self._told or self._closed

    def listen(self, table: WaitTable, number: int) -> None:
        self._news = lambda: table.touch(number)
        if self.ready():
            table.touch(number)

    def ready(self) -> bool:
        return bool(self._items) or self._error is not None or self._closed

    def take(self) -> str | NotYet | None:
        with self._lock:
            if self._items:
                text = self._items.popleft()
                self._room.give(len(text))
                return text
            if self._error is not None:
                self._told = True
        if self._told and self._error is not None:
            self._stop()
            raise self._error
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
        guest.services.messaging.push(guest.launch.owner, _topic(topic), self._text(message))

    def pull(self, topic: str) -> int:
        guest = self._guest
        owner, name, messaging = guest.launch.owner, _topic(topic), guest.services.messaging
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
        guest.services.messaging.broadcast(guest.launch.owner, _topic(topic), self._text(message))

    def subscribe(self, topic: str) -> int:
        guest = self._guest
        owner, name, messaging = guest.launch.owner, _topic(topic), guest.services.messaging

        def subscribe(call: Callable[[str], None]) -> Callable[[], None]:
            return messaging.subscribe(owner, name, call)

        return guest.waits.add(lambda: Feed(subscribe, guest.limits.queue, guest.room))

    def _text(self, message: str) -> str:
        return check_size("message", message, self._guest.limits.message, "a message")


def _topic(topic: object) -> str:
    if not isinstance(topic, str) or not 0 < len(topic) <= MAX_TOPIC:
        raise BadRequest.at("topic", f"must be a text of 1 to {MAX_TOPIC} characters")
    return topic
