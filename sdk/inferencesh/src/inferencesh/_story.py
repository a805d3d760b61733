"""The story of one task as a reader follows it: which lines are new, which are repeated. No I/O.

Lines carry ``seq``, the number of the last durable update they include. A line with a higher seq than the last one is
news. One with the same seq is live (progress, partial output, a repeated snapshot): it is shown when it says something
new, and log lines in it have been shown. One with a lower seq was overtaken. Durable updates count without gaps, so a
line that jumps ahead is live too: what it jumped over is still to come, and the cursor waits for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from inferencesh._errors import TaskCancelled, TaskFailed
from inferencesh._models import Task
from inferencesh._status import TaskStatus

log = logging.getLogger("inferencesh")

_LIVE = ("status", "attempt", "progress", "partial_output", "output", "error")


class LineBuffer:
    """Cuts bytes into lines. What follows the last line end waits for more."""

    def __init__(self) -> None:
        self._open: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that *chunk* completes, without their ends."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._open, lines[0]])
            self._open = []
        if rest:
            self._open.append(rest)
        return lines

    def rest(self) -> bytes:
        """What came after the last line end; it is a whole line only where the sender leaves the last end out."""
        return b"".join(self._open)


class Story:
    """What a reader has seen of a task. ``seq`` is the cursor to go on from, ``last`` the newest update."""

    def __init__(self, task_id: str = "", seq: int = 0) -> None:
        self.task_id = task_id
        self.seq = seq
        self.last: Task | None = None
        # Log lines and messages that were shown; None where the reader began in the middle.
        self._lines: int | None = 0 if seq == 0 else None
        self._sent: int | None = 0 if seq == 0 else None
        self._attempt: Any = None

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.status.terminal

    @property
    def result(self) -> Task | None:
        """The finished task; None while it is not over. Raises TaskFailed, TaskCancelled."""
        return settle(self.last) if self.last is not None and self.ended else None

    def read(self, line: bytes) -> Task | None:
        """The update in *line*, or None when it holds nothing new."""
        text = line.strip()
        if not text:
            return None
        try:
            value = json.loads(text)
        except ValueError:
            log.warning("task %s: a line of the stream is not JSON and was skipped", self.task_id)
            return None
        return self.accept(value) if isinstance(value, dict) else None

    def accept(self, value: Mapping[str, Any]) -> Task | None:
        """The update in a decoded line, or None when it holds nothing new."""
        if value.get("event") == "delta":
            return self._delta(value.get("data"))
        if "fields" in value and isinstance(value.get("data"), dict):
            value = self._merged(value["data"], value["fields"])
        if "status" not in value:
            return None  # a heartbeat, or something of a newer server
        return self._task(Task(value))

    def finish(self, task: Task) -> Task:
        """Take the record of a task that is over as its last update, with the log lines that were not seen yet."""
        logs = task.logs
        task["logs"] = logs[self._lines :] if self._lines is not None else []
        fresh = 0 if task.get("attempt") != self._attempt else self._sent
        task["sent"] = task.sent[fresh:] if fresh is not None else []
        self.last = task
        return task

    def _task(self, update: Task) -> Task | None:
        seq = update.get("seq")
        if isinstance(seq, int):
            if seq <= self.seq:
                update["logs"], update["sent"] = [], []
            ahead = seq > self.seq + 1 and not update.logs and not update.sent
            overtaken = seq < self.seq or ((seq == self.seq or ahead) and not self._differs(update))
            if overtaken and not update.status.terminal:
                return None
            if not ahead:
                self.seq = max(self.seq, seq)
        if self._lines is not None:
            self._lines += len(update.logs)
        self._count_sent(update)
        self.last = update
        return update

    def _count_sent(self, update: Task) -> None:
        if update.get("attempt") != self._attempt:
            self._attempt = update.get("attempt")
            self._sent = self._sent if self._sent is None else 0  # a new attempt sends from its beginning
        if self._sent is not None:
            self._sent += len(update.sent)

    def _differs(self, update: Task) -> bool:
        return self.last is None or any(self.last.get(name) != update.get(name) for name in _LIVE)

    def _delta(self, data: Any) -> Task | None:
        if not isinstance(data, dict):
            return None
        status = self.last.status if self.last is not None else TaskStatus.RUNNING
        return Task({"id": self.task_id, "status": status, "event": "delta", "delta": data.get("delta"), "logs": []})

    def _merged(self, data: Mapping[str, Any], fields: Any) -> Mapping[str, Any]:
        """A partial line laid over the last update."""
        names = [name for name in fields if name in data] if isinstance(fields, list) else list(data)
        return {**(self.last or data), "logs": [], **{name: data[name] for name in names}}


def settle(task: Task) -> Task:
    """*task* when it completed. Raises TaskFailed or TaskCancelled when it ended otherwise; it must be over."""
    if task.status is TaskStatus.COMPLETED:
        return task
    if task.status is TaskStatus.CANCELLED:
        raise TaskCancelled(f"task {task.id} was cancelled", task)
    raise TaskFailed(task.error or f"task {task.id} failed; its logs may say more", task)
