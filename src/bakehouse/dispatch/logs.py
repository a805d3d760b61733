"""A task's log on its way to the store: batches, and a bound.

Batches are JSON arrays of at most 64 KiB. Over the limit per task the beginning and the end are kept: what falls
between is counted and marked by one line of stream ``system``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

BATCH_BYTES = 63 * 1024
"""JSON per batch."""

LINE_CHARS = 8 * 1024
"""A longer line is split; written as escapes, six bytes a character, it still fits a batch."""

Line = dict[str, Any]


class LogBuffer:
    """Collects lines until they are taken as batches. ``limit`` bytes per task: 3/4 head, 1/4 tail."""

    def __init__(self, limit: int) -> None:
        self._head_left = limit * 3 // 4
        self._tail_limit = limit // 4
        self._tail: deque[Line] = deque()
        self._tail_bytes = 0
        self._skipped_lines = 0
        self._skipped_bytes = 0
        self._waiting: list[Line] = []
        self.waiting_bytes = 0

    def add(self, stream: str, lines: list[str], level: str | None = None) -> None:
        for text in lines:
            for start in range(0, len(text), LINE_CHARS) if len(text) > LINE_CHARS else (0,):
                line: Line = {"stream": stream, "text": text[start : start + LINE_CHARS]}
                if level is not None:
                    line["level"] = level
                self._add(line)

    def _add(self, line: Line) -> None:
        size = len(line["text"]) + 1
        if self._head_left > 0:
            self._head_left -= size
            self.waiting_bytes += size
            self._waiting.append(line)
            return
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > self._tail_limit:
            dropped = len(self._tail.popleft()["text"]) + 1
            self._tail_bytes -= dropped
            self._skipped_lines += 1
            self._skipped_bytes += dropped

    def take(self) -> list[str]:
        """What waits, as JSON batches."""
        lines, self._waiting, self.waiting_bytes = self._waiting, [], 0
        return _batches(lines)

    def finish(self) -> list[str]:
        """The last batches: what waits, then the gap if there was one, then the tail."""
        lines, self._waiting, self.waiting_bytes = self._waiting, [], 0
        if self._skipped_lines:
            gap = f"{self._skipped_lines} lines ({self._skipped_bytes} bytes)"
            text = f"... {gap} left out: this task's log is over its limit ..."
            lines.append({"stream": "system", "text": text})
        lines.extend(self._tail)
        self._tail.clear()
        self._tail_bytes = self._skipped_lines = self._skipped_bytes = 0
        return _batches(lines)


def _batches(lines: list[Line]) -> list[str]:
    batches: list[str] = []
    batch: list[bytes] = []
    size = 0
    for line in lines:
        text = orjson.dumps(line)
        if batch and size + len(text) > BATCH_BYTES:
            batches.append(_array(batch))
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 1
    if batch:
        batches.append(_array(batch))
    return batches


def _array(batch: list[bytes]) -> str:
    return (b"[" + b",".join(batch) + b"]").decode()


def texts(data: str | None) -> list[str]:
    """The printable lines of a stored batch."""
    return [line["text"] for line in orjson.loads(data)] if data else []
