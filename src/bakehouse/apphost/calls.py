"""One call as the child keeps it, and what the app sees of it: context, progress, logger, temp directory."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from pathlib import Path
from typing import Any, Callable

from . import messages
from .functions import Function
from .loader import is_sdk_class

COALESCE_SECONDS = 0.01


class Latest:
    """At most 100 frames a second: the newest waits for its turn, older ones are dropped.

    Not thread-safe; the runner guards it. ``drop`` is told of the files of frames that are never sent.
    """

    def __init__(self, drop: Callable[[list[messages.Message]], None]) -> None:
        self._drop = drop
        self._waiting: tuple[bytes, list[messages.Message]] | None = None
        self._sent = 0.0

    def offer(self, frame: bytes, files: list[messages.Message]) -> bytes | None:
        """The frame to send now, or None when it waits."""
        if self._waiting is not None:
            self._drop(self._waiting[1])
        self._waiting = (frame, files)
        return self.take()

    def take(self, force: bool = False) -> bytes | None:
        """The waiting frame if its time has come."""
        now = time.monotonic()
        if self._waiting is None or (not force and now - self._sent < COALESCE_SECONDS):
            return None
        frame, self._waiting, self._sent = self._waiting[0], None, now
        return frame

    @property
    def waits(self) -> bool:
        """Whether a frame is held back."""
        return self._waiting is not None


class Call:
    """One call. ``begun`` turns true when its code starts to execute."""

    def __init__(self, message: messages.Message, function: Function | None) -> None:
        self.id: str = message["id"]
        self.attempt: int = message["attempt"]
        self.name: str = message["function"]
        self.input: dict[str, Any] = message["input"]
        self.fields: dict[str, Any] = message["context"]
        self.function = function
        self.begun = False
        self.cancel_requested = False
        self.task: asyncio.Task[None] | None = None
        self.updates: dict[str, Latest] = {}
        self._inbox: queue.SimpleQueue[Any] | None = None

    @property
    def inbox(self) -> queue.SimpleQueue[Any]:
        """Messages sent to the running task, oldest first."""
        if self._inbox is None:
            self._inbox = queue.SimpleQueue()
        return self._inbox


class Context:
    """``self.context``: always of the call whose code asks, also when several run at once."""

    def __init__(self, current: Callable[[], Call | None], ids: dict[str, str], metadata_type: Any) -> None:
        self._current = current
        self._ids = ids
        self._metadata_type = metadata_type

    def __repr__(self) -> str:
        return f"Context(task_id={self.task_id!r}, cancel_requested={self.cancel_requested})"

    @property
    def task_id(self) -> str | None:
        """The task; None outside of a call."""
        call = self._current()
        return str(call.fields.get("task_id") or call.id) if call else None

    @property
    def attempt(self) -> int:
        """1 for the first try of a task; 0 outside of a call."""
        call = self._current()
        return call.attempt if call else 0

    @property
    def app_id(self) -> str | None:
        """The app."""
        return self._field("app_id")

    @property
    def owner_id(self) -> str | None:
        """Whose task it is."""
        return self._field("owner_id")

    @property
    def session_id(self) -> str | None:
        """The session that the call belongs to, if any."""
        return self._field("session_id")

    @property
    def cancel_requested(self) -> bool:
        """Whether the task shall end early; worth asking in long loops."""
        call = self._current()
        return call is not None and call.cancel_requested

    @property
    def inbox(self) -> queue.SimpleQueue[Any]:
        """Messages sent to the running task. Raises ``RuntimeError`` outside of a call."""
        call = self._current()
        if call is None:
            raise RuntimeError("there is an inbox only while a call runs")
        return call.inbox

    @property
    def metadata(self) -> Any:
        """The same facts as the SDK's ``Metadata``, extras included."""
        return metadata_of(self._current(), self._ids, self._metadata_type)

    def _field(self, name: str) -> str | None:
        call = self._current()
        value = (call.fields.get(name) if call else None) or self._ids.get(name)
        return str(value) if value else None


def metadata_of(call: Call | None, ids: dict[str, str], metadata_type: Any) -> Any:
    """``metadata_type`` filled from the call, or a plain dict if the SDK has no such class."""
    fields: dict[str, Any] = dict(ids)
    if call is not None:
        fields.update(call.fields)
        fields["task_id"] = fields.get("task_id") or call.id
    fields.setdefault("team_id", fields.get("owner_id"))
    fields.setdefault("app_version_id", fields.get("version_id"))
    return fields if metadata_type is None else metadata_type(**fields)


def attach(app: Any, context: Context, temp_dir: str, report_progress: Callable[..., None]) -> None:
    """Give the instance its context, logger, temp directory and progress, unless the app defines the name itself.

    They go straight into the instance's dict: a pydantic model would refuse or copy them.
    """
    logger = logging.getLogger("app")
    logger.setLevel(logging.DEBUG)
    given = {
        "context": context,
        "logger": logger,
        "temp_dir": Path(temp_dir),
        "report_progress": report_progress,
    }
    for name, value in given.items():
        if not _defined_by_app(type(app), name):
            app.__dict__[name] = value


def _defined_by_app(cls: type[Any], name: str) -> bool:
    for base in cls.__mro__:
        if is_sdk_class(base, "BaseApp"):
            return False
        if name in vars(base) or name in vars(base).get("__annotations__", {}):
            return True
    return False
