"""Following a task's stream to its end, over as many connections as that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Callable

from inferencesh._api import BUSY, MAX_PAUSE, Api, retry_after, segment
from inferencesh._errors import ConnectionFailed, StreamInterrupted, TaskTimeout, error_from
from inferencesh._flow import Call, Close, Emit, Flow, Reply, Request, Sleep, open_stream, read, send
from inferencesh._models import StreamingOptions, Task
from inferencesh._story import LineBuffer, Story

Observer = Callable[[Task], Any]

IDLE_SECONDS = 15.0
"""A stream is dead when this long no byte came: the server says something every 3 s."""

HEALTHY_SECONDS = 30.0
"""A connection that lived this long gives its budget of retries back, news or not."""

BEAT_SECONDS = 4.0
"""Longer than the server's silences. A deadline nearer than this needs a connection that wakes up in time."""

STREAM_HEADERS = {
    "Accept": "application/x-ndjson",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",
}


class Deadline:
    """Until when to wait for a task; ``seconds`` None is for ever."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        if seconds is not None and seconds < 0:
            raise ValueError("timeout must not be negative")
        self.seconds, self._clock = seconds, clock
        self._end = None if seconds is None else clock() + seconds

    def left(self, most: float) -> float:
        """Seconds left, at most *most* and never negative."""
        return most if self._end is None else max(0.0, min(most, self._end - self._clock()))

    def check(self, task_id: str) -> None:
        """Raise TaskTimeout when the time is over."""
        if self._end is not None and self.seconds is not None and self._clock() >= self._end:
            raise TaskTimeout(task_id, self.seconds)


class Follower:
    """Follows one task. ``observers`` are called with every update before it is emitted."""

    def __init__(
        self,
        api: Api,
        story: Story,
        options: StreamingOptions | None = None,
        deadline: Deadline | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._api, self._story = api, story
        self._options = options or StreamingOptions()
        self._deadline = deadline or Deadline(None, api.clock)
        self._observers = observers
        self._failures = 0
        self._pause: float | None = None
        self._reason = ""

    def follow(self) -> Flow[Task]:
        """Emit updates to the end of the task and return the last one.

        Raises StreamInterrupted, TaskTimeout, and APIError when the server refuses.
        """
        while True:
            self._deadline.check(self._story.task_id)
            opened = self._api.clock()
            with suppress(ConnectionFailed):  # kept in _reason by the connection itself
                clean = yield from self._connection()
                if clean and not self._story.ended:
                    yield from self._reconcile()
            yield Close()
            if self._story.ended and self._story.last is not None:
                return self._story.last
            if self._api.clock() - opened >= HEALTHY_SECONDS:
                self._failures = 0
            self._deadline.check(self._story.task_id)
            yield Sleep(self._deadline.left(self._next_pause()))

    def _connection(self) -> Flow[bool]:
        """One connection, as long as it lives; True when the server ended it properly."""
        timeout = max(0.05, self._deadline.left(IDLE_SECONDS))
        try:
            head = yield from open_stream(self._request(timeout))
            if head.status >= 400:
                yield from self._refused(head)
                return False
            return (yield from self._read_to_end(timeout))
        except ConnectionFailed as error:
            self._reason = str(error)
            raise

    def _request(self, timeout: float) -> Request:
        after = self._story.seq or None
        path = f"/tasks/{segment(self._story.task_id)}/stream"
        return self._api.request("GET", path, query={"after": after}, headers=STREAM_HEADERS, timeout=timeout)

    def _read_to_end(self, timeout: float) -> Flow[bool]:
        lines = LineBuffer()
        self._reason = "the server ended it before the task was over"
        while True:
            chunk = yield from read(self._options.chunk_size)
            for line in lines.feed(chunk) if chunk else [lines.rest()]:
                yield from self._show(self._story.read(line))
                if self._story.ended:
                    return True
            if not chunk:
                return True
            self._deadline.check(self._story.task_id)
            left = self._deadline.left(IDLE_SECONDS)
            if left < BEAT_SECONDS and left + 0.5 < timeout:
                self._pause, self._failures = 0.0, self._failures - 1  # a reconnect of our own making costs nothing
                return False

    def _show(self, update: Task | None) -> Flow[None]:
        if update is None:
            return
        self._failures = 0
        if update.status.terminal:
            yield Close()  # whoever reads the last update may never come back
        for observer in self._observers:
            yield Call(observer, update)
        yield Emit(update)

    def _refused(self, head: Reply) -> Flow[None]:
        """The server answered with an error: note a pause if it is only busy, else raise."""
        body = b""
        while True:
            chunk = yield from read(65536)
            if not chunk:
                break
            body += chunk
        pause = retry_after(head.headers)
        if head.status not in BUSY or (pause or 0) > MAX_PAUSE:
            raise error_from(head.status, body, pause)
        self._pause, self._reason = pause, f"the server answered {head.status}"

    def _reconcile(self) -> Flow[None]:
        """A stream that ended early is checked against the record."""
        path = f"/tasks/{segment(self._story.task_id)}"
        reply = yield from send(self._api.request("GET", path))
        if reply.status >= 400 and reply.status not in BUSY:
            raise error_from(reply.status, reply.body)
        if reply.status >= 400:
            return
        data, messages = self._api.unwrap(reply)
        task = Task(data, messages)
        if task.status.terminal:
            yield from self._show(self._story.finish(task))

    def _next_pause(self) -> float:
        """Seconds before the next connection. Raises StreamInterrupted when the budget is used up."""
        if self._failures >= self._options.max_retries:
            raise StreamInterrupted(self._story.task_id, self._story.seq, self._reason)
        self._failures += 1
        wanted, self._pause = self._pause, None
        return float(min(self._options.retry_delay * 1.5 ** (self._failures - 1), 10.0)) if wanted is None else wanted
