"""What callers hand over and get back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferencesh._status import TaskStatus


class Record(dict[str, Any]):
    """An answer of the server: a dict. ``data`` is the dict itself, for code that expects a response around it.

    ``messages`` holds what the server had to say beside it, such as warnings.
    """

    messages: list[dict[str, Any]]

    def __init__(self, values: Mapping[str, Any], messages: list[dict[str, Any]] | None = None) -> None:
        super().__init__(values)
        self.messages = messages or []

    @property
    def data(self) -> dict[str, Any]:
        return self

    @property
    def id(self) -> str:
        return str(self.get("id", ""))


class Task(Record):
    """A task, or one update of its stream; ``["status"]`` is a `TaskStatus`.

    An update of a stream carries only new lines in ``logs``, and new messages of an inferlet in ``sent``; the task
    itself, as ``run`` and ``get_task`` give it, carries all of them.
    """

    def __init__(self, values: Mapping[str, Any], messages: list[dict[str, Any]] | None = None) -> None:
        super().__init__(values, messages)
        self["status"] = TaskStatus.parse(values.get("status", 0))

    @property
    def status(self) -> TaskStatus:
        found = self["status"]
        return found if isinstance(found, TaskStatus) else TaskStatus.parse(found)

    @property
    def output(self) -> Any:
        return self.get("output")

    @property
    def error(self) -> str | None:
        return self.get("error")

    @property
    def logs(self) -> list[str]:
        return self.get("logs") or []

    @property
    def sent(self) -> list[Any]:
        return self.get("sent") or []

    @property
    def session_id(self) -> str | None:
        return self.get("session_id")


class Page(list[Record]):
    """One page of a list. ``next_cursor`` is None on the last one; pass it as ``cursor=`` for the next page."""

    def __init__(self, values: Mapping[str, Any], kind: type[Record] = Record) -> None:
        super().__init__(kind(item) for item in values.get("items") or [])
        self.next_cursor: str | None = values.get("next_cursor") or None
        self.total: int | None = values.get("total_items")


@dataclass(frozen=True)
class UploadFileOptions:
    """How an uploaded file is kept. What is not given is guessed from the file's name.

    ``path`` is a folder-like name under which the server lists it; ``public`` files may be cached by anyone.
    """

    filename: str | None = None
    content_type: str | None = None
    path: str | None = None
    public: bool = False


@dataclass(frozen=True)
class StreamingOptions:
    """How a stream deals with a broken connection.

    ``max_retries``: reconnects in a row without news before `StreamInterrupted`; 0 never reconnects.
    ``retry_delay``: seconds before the first of them, growing by half with each, up to 10 s.
    ``chunk_size``: at most so many bytes are taken from the connection and parsed at a time.
    """

    max_retries: int = 10
    retry_delay: float = 1.0
    chunk_size: int = 65536

    def __post_init__(self) -> None:
        if self.max_retries < 0 or self.retry_delay < 0 or self.chunk_size < 1:
            raise ValueError("max_retries and retry_delay must not be negative, chunk_size must be at least 1")
