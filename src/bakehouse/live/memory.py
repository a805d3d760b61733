"""Live feeds in this process."""

from __future__ import annotations

from collections.abc import Container

from bakehouse.core.task import Task
from bakehouse.live.base import Feed


class MemoryLive:
    """See ``Live``. Feeds live from acceptance to the end; a closed one stays with the readers that hold it."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}

    def open(self, task: Task, *, remote: bool = False) -> Feed:
        feed = self.feeds.get(task.id)
        if feed is None:
            feed = self.feeds[task.id] = Feed(task, remote=remote)
        elif feed.remote and not remote:
            # This server took over a task that it had only watched. What the feed has shown stays what it was, so
            # that the taker publishes all that came since.
            feed.remote = False
        return feed

    def latest(self, task_id: str) -> Feed | None:
        return self.feeds.get(task_id)

    def close(self, task_id: str) -> None:
        self.feeds.pop(task_id, None)

    def wake_all(self) -> None:
        """Wake every reader: the server drains and they must look."""
        for feed in list(self.feeds.values()):
            for subscription in list(feed.subscriptions):
                subscription.wake()

    def release(self, keep: Container[str] = ()) -> None:
        """Let go those who wait for a task to end, except for the tasks in *keep*."""
        for task_id, feed in self.feeds.items():
            if task_id not in keep:
                feed.release()

    @property
    def streams(self) -> int:
        """How many readers there are."""
        return sum(len(feed.subscriptions) for feed in self.feeds.values())
