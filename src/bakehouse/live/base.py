"""What a live feed carries and the contract of the room that carries it.

One ``Feed`` stands for one task that somebody may be watching. Durable updates (status moves, log batches) are
published after their commit and carry a seq; live-only ones (progress, partial output, deltas) repeat the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from bakehouse.core.task import Event, Task, TaskStatus

PENDING_LIMIT = 256
"""Updates a subscriber may lag behind before it is told to catch up instead."""

HEAVY = 16 * 1024
"""A partial output of about more characters than this is heavy."""

HEAVY_LIMIT = 4
"""Updates with heavy partial outputs that a subscriber may lag behind: they, and not their number, fill memory."""

KEPT_LOG_BYTES = 256 * 1024
"""How much of the newest logs a feed keeps in memory; older ones are read from the store."""

KEPT_ENCODED = 64
"""Kept updates older than this many are encoded for each reader anew: a line repeats the task's whole input."""


class Update:
    """One line of a task's stream. ``encoded`` keeps what each dialect made of it: encoded once, sent to everyone."""

    __slots__ = (
        *("at", "attempt", "delta", "durable", "encoded", "logs", "partial", "progress", "sent", "seq", "status"),
        "task",
    )

    def __init__(
        self,
        task: Task,
        *,
        seq: int,
        status: TaskStatus,
        at: int,
        attempt: int,
        durable: bool,
        logs: list[str] | None = None,
        progress: dict[str, Any] | None = None,
        partial: Any = None,
        delta: dict[str, Any] | None = None,
        sent: dict[str, Any] | None = None,
    ) -> None:
        self.task = task
        self.seq = seq
        self.status = status
        self.at = at
        self.attempt = attempt
        self.durable = durable
        self.logs = logs
        self.progress = progress
        self.partial = partial
        self.delta = delta
        self.sent = sent
        self.encoded: dict[str, bytes] | None = {}

    def bytes_for(self, dialect: str, encode: Callable[[Update], bytes]) -> bytes:
        """This update in *dialect*'s form; *encode* runs once per update and dialect, while the update is new."""
        if self.encoded is None:
            return encode(self)
        found = self.encoded.get(dialect)
        if found is None:
            found = self.encoded[dialect] = encode(self)
        return found

    def for_keeping(self) -> Update:
        """This update as history: without the partial output, of which only the newest counts."""
        if self.partial is None:
            return self
        return Update(
            self.task,
            seq=self.seq,
            status=self.status,
            at=self.at,
            attempt=self.attempt,
            durable=True,
            logs=self.logs,
            progress=self.progress,
            sent=self.sent,
        )


def is_heavy(value: Any) -> bool:
    """Whether *value*, of JSON, takes more than about ``HEAVY`` characters. Looks at no more than it must."""
    weight, rest = 0, [value]
    while rest:
        item = rest.pop()
        weight += len(item) + 8 if isinstance(item, str) else 8
        if weight > HEAVY:
            return True
        if isinstance(item, dict):
            weight += 8 * len(item)
            rest.extend(item.values() if weight <= HEAVY else ())
        elif isinstance(item, list):
            weight += 8 * len(item)
            rest.extend(item if weight <= HEAVY else ())
    return weight > HEAVY


class Subscription:
    """One reader of a feed. It never blocks the publisher and never grows: over the limit it is marked ``behind``.

    A reader that is behind re-reads durable events from the store; live-only updates it missed are replaced by the
    feed's newest snapshot.
    """

    __slots__ = ("_heavy", "_waiter", "behind", "feed", "pending")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.pending: deque[Update] = deque()
        self.behind = False
        self._heavy = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, update: Update, *, heavy: bool = False) -> None:
        """Add an update, or give up what waits when it is too much. ``heavy``: its partial output is."""
        self._heavy += heavy
        if len(self.pending) >= PENDING_LIMIT or self._heavy > HEAVY_LIMIT:
            self.pending.clear()
            self._heavy = int(heavy)
            self.behind = True
        self.pending.append(update)
        self.wake()

    def wake(self) -> None:
        """Let a waiting ``next`` return, with what there is."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def next(self) -> list[Update]:
        """The updates since the last call, waiting for one; [] when woken without any: a tick, or a drain."""
        if not self.pending:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        found = list(self.pending)
        self.pending.clear()
        self._heavy = 0
        return found

    def close(self) -> None:
        self.feed.subscriptions.discard(self)
        self.wake()


class Feed:
    """The recent story of one active task. ``task`` is its committed state; only the publisher changes it."""

    __slots__ = (
        "_weighed",
        "done",
        "kept",
        "kept_bytes",
        "partial",
        "progress",
        "remote",
        "subscriptions",
        "task",
        "waiters",
    )

    def __init__(self, task: Task, *, remote: bool = False) -> None:
        self.task = task
        self.remote = remote
        self.kept: deque[Update] = deque()
        self.kept_bytes = 0
        self.progress: dict[str, Any] | None = None
        self.partial: Any = None
        self.subscriptions: set[Subscription] = set()
        self.waiters = 0
        self._weighed: tuple[Any, bool] = (None, False)
        self.done: asyncio.Future[Task] = asyncio.get_running_loop().create_future()

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self.subscriptions.add(subscription)
        return subscription

    def snapshot(self) -> Update:
        """The newest state as a live-only update."""
        task = self.task
        return Update(
            task,
            seq=task.last_seq,
            status=task.status,
            at=task.updated_at,
            attempt=task.attempt,
            durable=False,
            progress=self.progress,
            partial=self.partial,
        )

    def commit(self, events: list[Event], logs: Callable[[Event], list[str]]) -> None:
        """Publish durable *events* of this task, which are committed; ``task`` has been updated already."""
        for event in events:
            lines = logs(event) if event.kind == "log" else None
            sent = orjson.loads(event.data) if event.kind == "sent" and event.data else None
            if event.status == TaskStatus.QUEUED:  # a new attempt starts from nothing
                self.progress = self.partial = None
            update = Update(
                self.task,
                seq=event.seq,
                status=event.status,
                at=event.at,
                attempt=event.attempt,
                durable=True,
                logs=lines,
                progress=self.progress,
                partial=self.partial,
                sent=sent,
            )
            self.kept.append(update.for_keeping())
            if len(self.kept) > KEPT_ENCODED:
                self.kept[-KEPT_ENCODED - 1].encoded = None
            if event.data is not None:
                self._trim(len(event.data))
            if self.subscriptions:
                self._push(update)
        if self.task.status.terminal and not self.done.done():
            self.done.set_result(self.task)

    def skip(self, task: Task) -> None:
        """*task* went on elsewhere, further than this feed has shown: readers get that from the store."""
        self.task = task
        self.progress = self.partial = None
        self.kept.clear()
        self.kept_bytes = 0
        for subscription in self.subscriptions:
            subscription.behind = True
            subscription.wake()

    def release(self) -> None:
        """Let those who wait for the end go on with the task as it stands: it will not end here."""
        if not self.done.done():
            self.done.set_result(self.task)

    def _trim(self, added: int) -> None:
        """Forget the oldest updates when the kept logs are too large; readers find them in the store."""
        self.kept_bytes += added
        if self.kept_bytes > KEPT_LOG_BYTES:
            self.kept.clear()
            self.kept_bytes = 0

    def progressed(self, at: int) -> None:
        """Publish the newest progress and partial output, live only."""
        if self.subscriptions:
            self._send(self.snapshot(), at)

    def delta(self, delta: dict[str, Any], at: int) -> None:
        """Publish a piece of streamed output, live only."""
        if self.subscriptions:
            update = self.snapshot()
            update.delta = delta
            self._send(update, at)

    def _send(self, update: Update, at: int) -> None:
        update.at = at
        self._push(update)

    def _push(self, update: Update) -> None:
        partial = update.partial
        if self._weighed[0] is not partial:
            self._weighed = (partial, is_heavy(partial))
        for subscription in self.subscriptions:
            subscription.push(update, heavy=self._weighed[1])

    def since(self, after: int) -> list[Update] | None:
        """Kept updates after seq *after*, or None when some of them are only in the store."""
        if self.task.last_seq <= after:
            return []
        if not self.kept or self.kept[0].seq > after + 1 or self.kept[-1].seq != self.task.last_seq:
            return None
        return [update for update in self.kept if update.seq > after]


class Live(Protocol):
    """Feeds of the tasks that are active here or watched from here."""

    def open(self, task: Task, *, remote: bool = False) -> Feed:
        """The feed of *task*, made if missing. ``remote``: another server runs the task; somebody must poll for it."""
        ...

    def latest(self, task_id: str) -> Feed | None:
        """The feed as it stands, or None."""
        ...

    def close(self, task_id: str) -> None:
        """The task ended: forget the feed once its readers have left."""
        ...
