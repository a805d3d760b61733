"""Topics in this process: queues that programs push to and pull from, and broadcasts to those who subscribed.

All of an owner's programs share its topics, and nobody else sees them. Nothing is kept across a restart. Futures and
subscribers are called without the lock held, so that they may call back.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Literal

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.base import Messaging, OwnerLimits
from bakehouse.inferlets.errors import Refused

log = logging.getLogger(__name__)

#: Broadcasts that wait for one subscriber; it misses further ones.
BACKLOG = 64
#: Subscribers of one topic. A broadcast goes to all of them in one call, which nothing interrupts.
MAX_SUBSCRIBERS = 1024
#: Characters of a topic's name.
MAX_TOPIC = 1024


def check_topic(name: object) -> str:
    """*name*, if it can be a topic's. Raises `BadRequest`."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TOPIC:
        raise BadRequest.at("topic", f"must be a text of 1 to {MAX_TOPIC} characters")
    return name


@dataclass(frozen=True, slots=True)
class Counts:
    """What an owner's topics hold now, and how many broadcasts missed a subscriber so far."""

    topics: int = 0
    messages: int = 0
    bytes: int = 0
    missed: int = 0


class LocalMessaging(Messaging):
    """Thread-safe. Calls take microseconds and never block."""

    def __init__(self, limits: OwnerLimits | None = None) -> None:
        self._limits = limits or OwnerLimits()
        self._guard = threading.Lock()
        self._owners: dict[str, _Owner] = {}
        self._numbers = itertools.count()

    def push(self, owner: str, topic: str, message: str) -> None:
        """Give *message* to the first who waits, or queue it. Raises `Refused` over a limit of the owner."""
        size = len(message.encode("utf-8", "surrogatepass"))
        with self._guard:
            held = self._open(owner, topic)
            item = _Item(next(self._numbers), message, size)
            if not held.pulls:
                self._check_room(owner, held, size)
            pull = self._offer(held, item)
            self._tidy(held)
        if pull is not None:
            pull.hand_over()

    def pull(self, owner: str, topic: str) -> Future[str]:
        with self._guard:
            held = self._open(owner, topic)
            pull = _Pull(self, held)
            if held.items:
                pull.item = self._take_first(held)
            else:
                held.pulls[pull] = None
            self._tidy(held)
        if pull.item is not None:
            pull.hand_over()
        return pull

    def broadcast(self, owner: str, topic: str, message: str) -> None:
        """Give *message* to all who are subscribed now, to each in the order in which it was broadcast."""
        with self._guard:
            found = self._owners.get(owner)
            held = found.topics.get(topic) if found is not None else None
            if found is None or held is None:
                return
            subscribers = list(held.subscribers)
            for subscriber in subscribers:
                if len(subscriber.backlog) < BACKLOG:
                    subscriber.backlog.append(message)
                else:
                    found.missed += 1
        for subscriber in subscribers:
            self._deliver(subscriber)

    def subscribe(self, owner: str, topic: str, call: Callable[[str], bool | None]) -> Callable[[], None]:
        """`Messaging.subscribe`. After the returned function *call* may be called once more, by who was about to.

        Raises `Refused` for one subscriber too many, too.
        """
        with self._guard:
            held = self._open(owner, topic)
            if len(held.subscribers) >= MAX_SUBSCRIBERS:
                raise Refused(
                    f"topic: {topic!r} has {MAX_SUBSCRIBERS} subscribers, the most there can be", field="topic"
                )
            subscriber = _Subscriber(call, held.owner)
            held.subscribers[subscriber] = None

        def end() -> None:
            with self._guard:
                subscriber.backlog.clear()
                held.subscribers.pop(subscriber, None)
                self._tidy(held)

        return end

    def counts(self, owner: str) -> Counts:
        with self._guard:
            found = self._owners.get(owner)
            if found is None:
                return Counts()
            return Counts(len(found.topics), found.messages, found.bytes, found.missed)

    # With the guard held

    def _open(self, owner: str, name: str) -> _Topic:
        """The topic, a new one where there is none. `_tidy` takes it away again when nothing came into it."""
        found = self._owners.get(owner) or _Owner(owner)
        held = found.topics.get(name)
        if held is None:
            check_topic(name)
            if len(found.topics) >= self._limits.topics:
                raise Refused(f"topics: an owner has at most {self._limits.topics} at one time", field="topics")
            held = found.topics[name] = _Topic(found, name)
            self._owners[owner] = found
        return held

    def _check_room(self, owner: str, held: _Topic, size: int) -> None:
        found, limits = held.owner, self._limits
        if found.messages >= limits.queued:
            field, most = "queued", f"{limits.queued} messages"
        elif found.bytes + size > limits.queued_bytes:
            field, most = "queued_bytes", f"{limits.queued_bytes} bytes of messages"
        else:
            return
        self._tidy(held)
        raise Refused(f"{field}: an owner has at most {most} waiting at one time", field=field)

    def _offer(self, held: _Topic, item: _Item) -> _Pull | None:
        """Who gets *item*; None when it was queued, in the order of numbers."""
        if held.pulls:
            pull, _ = held.pulls.popitem(last=False)
            pull.item = item
            return pull
        # What is given back is older than all that wait, but for others that are given back in this moment.
        if not held.items or held.items[-1].number < item.number:
            held.items.append(item)
        else:
            place = next(i for i, waiting in enumerate(held.items) if waiting.number > item.number)
            held.items.insert(place, item)
        held.owner.messages += 1
        held.owner.bytes += item.size
        return None

    def _take_first(self, held: _Topic) -> _Item:
        item = held.items.popleft()
        held.owner.messages -= 1
        held.owner.bytes -= item.size
        return item

    def _tidy(self, held: _Topic) -> None:
        """Take a topic away that nobody uses, and its owner who has no other."""
        found = held.owner
        if held.items or held.pulls or held.subscribers or found.topics.get(held.name) is not held:
            return
        del found.topics[held.name]
        if not found.topics and not found.missed:
            del self._owners[found.name]

    # Without it

    def _deliver(self, subscriber: _Subscriber) -> None:
        """Call *subscriber* for its backlog, unless another thread is doing that."""
        taken: bool | None = True
        while True:
            with self._guard:
                subscriber.owner.missed += taken is False
                if subscriber.busy or not subscriber.backlog:
                    return
                message = subscriber.backlog.popleft()
                subscriber.busy = True
            try:
                taken = subscriber.call(message)
            except Exception:
                log.exception("a subscriber failed; the others are not concerned")
            finally:
                with self._guard:
                    subscriber.busy = False

    def _give_up(self, pull: _Pull) -> bool:
        """Take *pull* out of the line, or its message back. False where its message was taken."""
        with self._guard:
            if pull.state != "open":
                return pull.state == "given up"
            pull.state = "given up"
            held, heir = pull.held, None
            held.pulls.pop(pull, None)
            if pull.item is not None:
                held = self._reopen(held)
                heir = self._offer(held, pull.item)
            self._tidy(held)
        if heir is not None:
            heir.hand_over()
        return True

    def _take(self, pull: _Pull) -> bool:
        """From now on the message of *pull* is its taker's. False where it was given up."""
        with self._guard:
            if pull.state == "open":
                pull.state = "taken"
            return pull.state == "taken"

    def _reopen(self, held: _Topic) -> _Topic:
        """The topic of that name as it is now; also over the limits, because nothing may be lost here."""
        found = self._owners.setdefault(held.owner.name, held.owner)
        return found.topics.setdefault(held.name, _Topic(found, held.name))


@dataclass(frozen=True, slots=True)
class _Item:
    number: int
    text: str
    size: int


class _Pull(Future[str]):
    """A place in a topic's line, and then a message that nobody else has."""

    def __init__(self, messaging: LocalMessaging, held: _Topic) -> None:
        super().__init__()
        self._messaging = messaging
        self.held = held
        self.item: _Item | None = None
        self.state: Literal["open", "taken", "given up"] = "open"

    def hand_over(self) -> None:
        assert self.item is not None
        if self.set_running_or_notify_cancel():
            self.set_result(self.item.text)

    def cancel(self) -> bool:
        """Also where a message is there and was not taken: it goes back then."""
        if not self._messaging._give_up(self):
            return False
        super().cancel()
        return True

    def cancelled(self) -> bool:
        return super().cancelled() or self.state == "given up"

    def result(self, timeout: float | None = None) -> str:
        message = super().result(timeout)
        if not self._messaging._take(self):
            raise CancelledError
        return message


@dataclass(eq=False, slots=True)
class _Subscriber:
    call: Callable[[str], bool | None]
    owner: _Owner
    backlog: deque[str] = field(default_factory=deque)
    busy: bool = False


@dataclass(eq=False, slots=True)
class _Topic:
    """In use while something is in it."""

    owner: _Owner
    name: str
    items: deque[_Item] = field(default_factory=deque)
    pulls: OrderedDict[_Pull, None] = field(default_factory=OrderedDict)
    subscribers: dict[_Subscriber, None] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Owner:
    name: str
    topics: dict[str, _Topic] = field(default_factory=dict)
    messages: int = 0
    bytes: int = 0
    missed: int = 0
