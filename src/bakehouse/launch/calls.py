"""One call inside an instance, and what its messages mean to the one who started it."""

from __future__ import annotations

import asyncio
import os
import stat
from enum import IntEnum
from pathlib import Path
from typing import Any

from bakehouse.core.executor import Call, ExecutorEvent, Failure, Finished, OutputFile, Sink
from bakehouse.core.ids import ulid
from bakehouse.launch.process import remove_tree


class Phase(IntEnum):
    """``WAITING``: for the instance to be ready. ``SENT``: the child holds it. ``RUNNING``: it executes."""

    WAITING = 0
    SENT = 1
    RUNNING = 2


class CallState:
    """Where a call stands. ``sink`` is None once its outcome was reported: what comes after is not heard."""

    __slots__ = ("call", "cancelling", "id", "phase", "recalled", "sink", "started", "timer")

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.id = f"{call.task.id}.{call.attempt}"
        self.sink: Sink | None = sink
        self.phase = Phase.WAITING
        self.started = 0.0
        self.cancelling = False
        self.recalled = False
        self.timer: asyncio.TimerHandle | None = None

    def tell(self, event: ExecutorEvent) -> None:
        """Report *event*, unless the outcome was reported before."""
        if self.sink is not None:
            self.sink(event)

    def finish(self, outcome: ExecutorEvent) -> None:
        """Report the outcome, once."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        sink, self.sink = self.sink, None
        if sink is not None:
            sink(outcome)


def failure_of(error: dict[str, Any], code: str | None = None) -> Failure:
    """The failure that a child's error object describes. Its fields are the child's word, so each is checked."""
    fields = error.get("errors")
    return Failure(
        message=str(error.get("message") or error.get("type") or "the app failed")[:4000],
        code=code or str(error.get("code") or "app_error"),
        traceback=str(error.get("traceback") or ""),
        fields=[field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else [],
    )


def finished_with(message: dict[str, Any], outbox: Path, store: Path) -> Finished:
    """The outcome that a ``result`` message means: its output, with its files taken out of the app's reach."""
    try:
        return Finished(message["output"], take_files(message, outbox, store))
    except OutputFileError as error:
        return Finished(failure=Failure(str(error), code="output_file"))


class OutputFileError(Exception):
    """The child named an output file that is not a plain file of its outbox, or a place that its output lacks."""


def take_files(message: dict[str, Any], outbox: Path, store: Path) -> list[OutputFile]:
    """Move the files of an output from *outbox* to *store* (same file system): the app cannot swap them any more."""
    taken: list[OutputFile] = []
    try:
        for entry in message.get("files") or ():
            if not isinstance(entry, dict) or not _is_null_at(message["output"], entry.get("pointer")):
                raise OutputFileError("the app named an output file for a place that its output does not have")
            taken.append(_take_file(entry, outbox, store))
    except OutputFileError:
        for file in taken:
            file.path.unlink()
        raise
    return taken


def _is_null_at(value: Any, pointer: object) -> bool:
    """Whether JSON pointer *pointer* leads to a null of *value*."""
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        return False
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return False
    return value is None


def _take_file(entry: dict[str, Any], outbox: Path, store: Path) -> OutputFile:
    name = entry.get("name")
    if not isinstance(name, str) or not name or "/" in name or "\0" in name or name in (".", ".."):
        raise OutputFileError(f"the app named an impossible output file: {name!r}")
    kept = store / f"out_{ulid()}"
    try:
        (outbox / name).rename(kept)
        found = kept.lstat()
    except OSError as error:
        raise OutputFileError(f"the output file {name!r} is not there: {os.strerror(error.errno or 0)}") from error
    # A link would make us read, with our rights, what the app itself may not.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        if stat.S_ISDIR(found.st_mode):
            remove_tree(kept)
        else:
            kept.unlink()
        raise OutputFileError(f"the output file {name!r} is not a plain file")
    return OutputFile(
        entry["pointer"],
        kept,
        str(entry.get("filename") or name)[:255],
        str(entry.get("content_type") or "application/octet-stream")[:255],
        found.st_size,
    )
