"""Catches what Python code prints and logs, and sends it as lines, in order, with the call they belong to.

Each source (a call, or the instance itself) has one ordered buffer. A buffer is sent when it holds 32 KiB, by the
thread that fills it (so that an app which prints 100 MB is slowed down instead of filling memory), or 20 ms after
the first of its text, by the ticker.
"""

from __future__ import annotations

import contextvars
import io
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

from . import messages
from .channel import Channel, Ticker

FLUSH_CHARS = 32 * 1024
FLUSH_SECONDS = 0.02
MAX_LINE_CHARS = 64 * 1024
FRAME_LINES_CHARS = 1024 * 1024

# The id of the call whose code runs here; empty in threads that the app made itself.
current_task: contextvars.ContextVar[str] = contextvars.ContextVar("bakehouse_task", default="")


def _last_drawing(line: str) -> str:
    """A progress bar redraws its line after a carriage return; only the newest drawing is kept."""
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def _pieces(line: str) -> list[str]:
    """An endless line in parts: a message has a size limit."""
    if len(line) <= MAX_LINE_CHARS:
        return [line]
    return [line[at : at + MAX_LINE_CHARS] for at in range(0, len(line), MAX_LINE_CHARS)]


def _portions(lines: list[str]) -> Iterator[list[str]]:
    """Lines in portions that fit into a frame."""
    portion: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if size > FRAME_LINES_CHARS and portion:
            yield portion
            portion, size = [], len(line)
        portion.append(line)
    yield portion


class _Buffer:
    """Complete lines by stream, in the order written, and the unfinished line of each stream."""

    def __init__(self) -> None:
        self.segments: list[tuple[str, str | None, list[str]]] = []
        self.tails: dict[str, str] = {}
        self.size = 0
        self.sent = 0.0

    def write(self, stream: str, text: str) -> None:
        tail = self.tails.get(stream, "")
        lines = (tail + text).split("\n")
        rest = lines.pop()
        if "\r" in text or "\r" in tail:
            lines = [_last_drawing(line) for line in lines]
            rest = _last_drawing(rest) + ("\r" if rest.endswith("\r") else "")
        if len(rest) > MAX_LINE_CHARS:
            lines.append(rest)
            rest = ""
        if len(text) > MAX_LINE_CHARS:
            lines = [piece for line in lines for piece in _pieces(line)]
        self.tails[stream] = rest
        if lines:
            self.add(stream, None, lines)

    def add(self, stream: str, level: str | None, lines: list[str]) -> None:
        self.size += sum(map(len, lines)) + len(lines)
        if self.segments and self.segments[-1][:2] == (stream, level):
            self.segments[-1][2].extend(lines)
        else:
            self.segments.append((stream, level, lines))

    def finish(self) -> None:
        for stream, rest in self.tails.items():
            if rest:
                self.add(stream, None, [rest])
        self.tails.clear()


class Capture:
    """Owns the buffers. Thread-safe; re-entrant, because a destructor may print while a line is being stored."""

    def __init__(self, channel: Channel, ticker: Ticker, fallback: Callable[[], str]) -> None:
        """``fallback`` names the call for text from threads without one: the only running call, or empty."""
        self._channel = channel
        self._ticker = ticker
        self._fallback = fallback
        self._lock = threading.RLock()
        self._buffers: dict[str, _Buffer] = {}

    def install(self) -> None:
        """Replace ``sys.stdout`` and ``sys.stderr`` and add a root logging handler at level INFO."""
        sys.stdout = _Stream(self, "stdout", 1)
        sys.stderr = _Stream(self, "stderr", 2)
        root = logging.getLogger()
        root.addHandler(_Handler(self))
        root.setLevel(logging.INFO)
        # It tells every request at INFO, with the secret part of a file's address.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    def write(self, stream: str, text: str) -> None:
        """Text as printed; lines are cut here."""
        with self._lock:
            name, buffer = self._buffer()
            buffer.write(stream, text)
            self._after(name, buffer)

    def log(self, level: str, text: str, task_id: str | None = None) -> None:
        """One logging record, which may have several lines."""
        with self._lock:
            name, buffer = self._buffer(task_id)
            buffer.add("log", level, [piece for line in text.split("\n") for piece in _pieces(line)])
            self._after(name, buffer)

    def flush(self) -> None:
        """Send all complete lines."""
        with self._lock:
            for name, buffer in list(self._buffers.items()):
                self._send(name, buffer)

    def finish(self, task_id: str) -> None:
        """Send what is left of a call, unfinished lines included; held until the next frame goes out."""
        if task_id not in self._buffers:
            return
        with self._lock:
            buffer = self._buffers.pop(task_id)
            buffer.finish()
            self._send(task_id, buffer)

    def finish_all(self) -> None:
        """Send everything: the process ends."""
        for name in list(self._buffers):
            self.finish(name)

    def _buffer(self, task_id: str | None = None) -> tuple[str, _Buffer]:
        name = task_id if task_id is not None else current_task.get() or self._fallback()
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = self._buffers[name] = _Buffer()
        return name, buffer

    def _after(self, name: str, buffer: _Buffer) -> None:
        now = time.monotonic()
        # What comes after a pause goes out at once: it may be the last that an app says before it crashes.
        if buffer.size >= FLUSH_CHARS or (buffer.segments and now - buffer.sent >= FLUSH_SECONDS):
            buffer.sent = now
            self._send(name, buffer)
            self._channel.flush()
        elif buffer.segments:
            self._ticker.within(FLUSH_SECONDS)

    def _send(self, name: str, buffer: _Buffer) -> None:
        segments, buffer.segments, buffer.size = buffer.segments, [], 0
        for stream, level, lines in segments:
            for portion in _portions(lines) if len(lines) > 1 else (lines,):
                frame = messages.encode(messages.log(name or None, stream, portion, level))
                self._channel.post(frame, hold=True)


class _Stream(io.TextIOBase):
    """Stands in for ``sys.stdout``; ``fileno`` is the real descriptor, for subprocesses."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, capture: Capture, name: str, descriptor: int) -> None:
        self._capture = capture
        self._descriptor = descriptor
        self.name = f"<{name}>"
        self.mode = "w"
        self._stream = name
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._capture.write(self._stream, text)
        return len(text)

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_options: Any) -> None:
        """Libraries ask for UTF-8 or line buffering; both hold already."""

    def close(self) -> None:
        """An app that closes its stdout must not end the log."""


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes are decoded as UTF-8, bad ones replaced."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """As for the text stream."""


class _Handler(logging.Handler):
    """Root handler: the message (and traceback) as lines, the level beside them."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._capture.log(record.levelname.lower(), self.format(record))
        except Exception:
            self.handleError(record)
