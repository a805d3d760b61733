"""Streams: the story of one task for one reader, from where it left off to the end, without gap or double.

A reader first gets the durable updates after its cursor (from the feed's memory, else from the store), then the
newest snapshot, then whatever is published. A reader that falls behind is brought up to date the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import structlog

from bakehouse.core.errors import BakehouseError, NotFound
from bakehouse.core.task import Event, Task
from bakehouse.live.base import Feed, Subscription, Update
from bakehouse.live.memory import MemoryLive
from bakehouse.store.base import Store

__all__ = ["Streams", "Update"]

log = structlog.get_logger(__name__)

TICK_SECONDS = 3.0
"""A quiet stream is woken this often, so that its reader hears a heartbeat."""

RESEND_TICKS = 5
"""After this many quiet ticks the snapshot is sent again: some clients give up on heartbeats alone."""

REMOTE_POLL_SECONDS = 0.2
"""How often the store is asked about a task that another server runs."""

PAGE = 200


class Streams:
    """See the module's text."""

    def __init__(self, store: Store, live: MemoryLive) -> None:
        self._store, self._live = store, live
        self._followers: dict[Feed, asyncio.Task[None]] = {}
        self.draining = False

    async def read(self, task: Task, after: int = 0) -> AsyncIterator[list[Update]]:
        """Batches of updates after seq *after*; an empty batch is a heartbeat. Ends after the terminal update.

        While the server drains it ends early: the reader reconnects with its cursor.
        """
        feed = self._live.latest(task.id)
        if feed is None and task.status.terminal:
            async for batch in self._replay(task, after):
                yield batch
            return
        if feed is None:
            feed = self._live.open(task, remote=True)
        if feed.remote:
            self.follow(feed)
        subscription = feed.subscribe()
        try:
            async for batch in self._live_updates(feed, subscription, after):
                yield batch
        finally:
            subscription.close()

    async def _live_updates(self, feed: Feed, subscription: Subscription, after: int) -> AsyncIterator[list[Update]]:
        cursor = after
        async for batch in self._catch_up(feed, cursor):
            cursor = max(cursor, batch[-1].seq)
            yield batch
            if batch[-1].status.terminal:
                return
        if feed.task.status.terminal and cursor >= feed.task.last_seq:
            yield [_terminal(feed.task)]
            return
        yield [_behind(feed.snapshot(), cursor)]
        quiet = 0
        ticker = _Ticker(subscription)
        try:
            while not self.draining:
                updates = await subscription.next()
                if subscription.behind:
                    subscription.behind = False
                    async for batch in self._catch_up(feed, cursor):
                        cursor = max(cursor, batch[-1].seq)
                        yield batch
                        if batch[-1].status.terminal:
                            return
                    updates = _without_states(updates)
                    if not feed.task.status.terminal:  # the newest state replaces those that were left out
                        updates.append(_behind(feed.snapshot(), max([cursor, *(u.seq for u in updates)])))
                # A live line from before a catch-up would set the reader's cursor back; the end is always told.
                fresh = [u for u in updates if u.seq > cursor or (not u.durable and u.seq == cursor) or _ends(u)]
                if not fresh:
                    quiet += 1
                    yield [feed.snapshot()] if quiet % RESEND_TICKS == 0 else []
                    continue
                quiet = 0
                ticker.seen()
                cursor = max(cursor, fresh[-1].seq)
                yield fresh
                if any(u.status.terminal for u in fresh):
                    return
        finally:
            ticker.stop()

    async def _catch_up(self, feed: Feed, after: int) -> AsyncIterator[list[Update]]:
        """Durable updates after *after* up to what the feed has shown."""
        kept = feed.since(after)
        if kept is None:
            async for batch in self._from_store(feed.task, after, feed.task.last_seq):
                yield batch
        elif kept:
            yield kept

    async def _replay(self, task: Task, after: int) -> AsyncIterator[list[Update]]:
        """The story of a task that is over."""
        ended = False
        async for batch in self._from_store(task, after, task.last_seq):
            ended = batch[-1].status.terminal
            yield batch
        if not ended:
            yield [_terminal(task)]

    async def _from_store(self, task: Task, after: int, until: int) -> AsyncIterator[list[Update]]:
        while after < until:
            # Not beyond what *task* shows: the end, read before it was shown, would lack the output.
            events = [event for event in await self._store.events(task.id, after, PAGE) if event.seq <= until]
            if not events:
                return
            after = events[-1].seq
            yield [_update(task, event) for event in events]

    # ---- tasks of other servers --------------------------------------------------------------------------

    def follow(self, feed: Feed) -> None:
        """Keep the feed of a task that another server runs up to date, while anybody reads or waits."""
        follower = self._followers.get(feed)
        if follower is None or follower.done():
            follower = self._followers[feed] = asyncio.create_task(self._poll(feed))
            follower.add_done_callback(lambda done: self._left(feed, done))

    def _left(self, feed: Feed, follower: asyncio.Task[None]) -> None:
        if self._followers.get(feed) is follower:
            del self._followers[feed]

    async def _poll(self, feed: Feed) -> None:
        """Feed a remote task from the store while anyone reads it, and until it is over or comes here."""
        while feed.remote and not feed.task.status.terminal:
            await asyncio.sleep(REMOTE_POLL_SECONDS)
            try:
                row, events = await self._news(feed)
            except NotFound:
                break
            except BakehouseError as error:  # the database is away: those who read here wait for it
                log.warning("task not followed", action="follow_failed", task=feed.task.id, error=error.detail)
                continue
            if not _still_remote(feed):
                return  # this server claimed it meanwhile
            feed.task = row
            # Durable updates first: a live one that overtook them would move readers' cursors past them.
            feed.commit(events, _lines)
            if not row.status.terminal:
                self._take_snapshot(feed, row)
            if not feed.subscriptions and not feed.waiters:
                break
        if feed.remote:
            self._live.close(feed.task.id)

    async def _news(self, feed: Feed) -> tuple[Task, list[Event]]:
        """The task's row as it was at the last of the events that *feed* has not shown; a page of these."""
        row = await self._store.get_task(feed.task.id, None)
        events = await self._store.events(row.id, feed.task.last_seq, PAGE)
        # What came after the row was read comes with the next one: this one lacks its output.
        events = [event for event in events if event.seq <= row.last_seq]
        if events:
            row.last_seq, row.status = events[-1].seq, events[-1].status
        return row, events

    @staticmethod
    def _take_snapshot(feed: Feed, row: Task) -> None:
        if row.snapshot is None:
            return
        state = orjson.loads(row.snapshot)
        changed = (state.get("progress"), state.get("partial_output")) != (feed.progress, feed.partial)
        feed.progress, feed.partial = state.get("progress"), state.get("partial_output")
        if changed:
            feed.progressed(row.updated_at)


class _Ticker:
    """Wakes a quiet subscription every few seconds with one timer, however many updates pass."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._busy = False
        self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def seen(self) -> None:
        self._busy = True

    def _tick(self) -> None:
        if not self._busy:
            self._subscription.wake()
        self._busy = False
        self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        self._handle.cancel()


def _still_remote(feed: Feed) -> bool:
    return feed.remote


def _ends(update: Update) -> bool:
    return update.durable and update.status.terminal


def _without_states(updates: list[Update]) -> list[Update]:
    return [update for update in updates if update.durable or update.delta is not None]


def _behind(snapshot: Update, cursor: int) -> Update:
    """*snapshot* as a live line of a reader at *cursor*: what was committed meanwhile is still to come to it."""
    snapshot.seq = min(snapshot.seq, cursor)
    return snapshot


def _lines(event: Event) -> list[str]:
    return [line["text"] for line in orjson.loads(event.data)] if event.data else []


def _update(task: Task, event: Event) -> Update:
    lines = _lines(event) if event.kind == "log" else None
    sent = orjson.loads(event.data) if event.kind == "sent" and event.data else None
    return Update(
        task, seq=event.seq, status=event.status, at=event.at, attempt=event.attempt, durable=True, logs=lines,
        sent=sent,
    )  # fmt: skip


def _terminal(task: Task) -> Update:
    """The last word on a task for a reader whose cursor stands behind it already."""
    return Update(task, seq=task.last_seq, status=task.status, at=task.updated_at, attempt=task.attempt, durable=True)
