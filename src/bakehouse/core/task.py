"""Tasks: the only unit of work. Their states, the legal moves between them, and what is written when they move."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from bakehouse.core.errors import Conflict


class TaskStatus(IntEnum):
    """States with the numbers that published clients use; the string form is the lower-case name."""

    UNKNOWN = 0
    RECEIVED = 1
    QUEUED = 2
    SCHEDULED = 3
    PREPARING = 4
    SERVING = 5
    SETTING_UP = 6
    RUNNING = 7
    CANCELLING = 8
    UPLOADING = 9
    COMPLETED = 10
    FAILED = 11
    CANCELLED = 12
    REJECTED = 13

    @property
    def text(self) -> str:
        return _TEXT[self]

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


_TEXT = {status: status.name.lower() for status in TaskStatus}

TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.REJECTED})

_S = TaskStatus
_FORWARD = (_S.SCHEDULED, _S.PREPARING, _S.SERVING, _S.SETTING_UP, _S.RUNNING, _S.UPLOADING, _S.COMPLETED)
_ALWAYS = frozenset({_S.FAILED, _S.CANCELLED})
_RETRY = frozenset({_S.QUEUED})

LEGAL: dict[TaskStatus, frozenset[TaskStatus]] = {
    _S.RECEIVED: frozenset({_S.QUEUED}) | _ALWAYS,
    _S.QUEUED: frozenset({_S.SCHEDULED}) | _ALWAYS,
    # A task on its way moves forward and may skip states; a lost attempt goes back to the queue.
    **{
        status: frozenset(_FORWARD[i + 1 :]) | _ALWAYS | _RETRY | {_S.CANCELLING}
        for i, status in enumerate(_FORWARD[:-1])
    },
    # A call that finishes while it is being cancelled keeps its result.
    _S.CANCELLING: frozenset({_S.UPLOADING, _S.COMPLETED}) | _ALWAYS,
    **{status: frozenset() for status in TERMINAL},
}
"""Which state may follow which. The one table; every room asks it."""


def check_move(before: TaskStatus, after: TaskStatus) -> None:
    """Raise Conflict ``invalid_transition`` unless *after* may follow *before*."""
    if after not in LEGAL[before]:
        raise Conflict(f"a {before.text} task cannot become {after.text}", code="invalid_transition")


@dataclass(slots=True)
class Task:
    """One unit of work as it stands now.

    ``attempt`` fences writers: every claim raises it and a write with an older one is refused. ``failures`` counts
    attempts that were lost, to compare with ``retries``. JSON values (``input``, ``setup``, ``output``, ``options``,
    ``snapshot``) are kept as JSON text, so that they are encoded once. ``lane`` groups tasks that the same instance
    can run. ``last_seq`` is the number of the last durable event. Times are microseconds UTC, ``timeout`` seconds.
    """

    id: str
    kind: str
    owner_id: str
    user_id: str
    root_id: str
    status: TaskStatus
    lane: str
    function: str
    input: str
    created_at: int
    updated_at: int
    parent_id: str | None = None
    attempt: int = 0
    failures: int = 0
    retries: int = 1
    app_id: str | None = None
    version_id: str | None = None
    app_ref: str | None = None
    setup: str | None = None
    session_id: str | None = None
    options: str | None = None
    timeout: float | None = None
    run_at: int | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    last_seq: int = 0
    lease_holder: str | None = None
    cancel_requested_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    output: str | None = None
    error: str | None = None
    error_code: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One durable line of a task's story; ``seq`` counts from 1 without gaps.

    ``kind`` is ``status`` (``status`` holds the move), ``log`` (``data`` holds a JSON array of
    ``{"stream", "level"?, "text"}``, at most 64 KiB) or ``sent`` (``data`` holds the JSON object ``{"first": number of
    messages before these, "messages": [...]}``). ``status`` of the latter two is the state they were written in.
    A status event's ``data`` may hold a JSON object: ``{"reason": ...}`` of a lost attempt, for instance.
    """

    seq: int
    at: int
    kind: str
    status: TaskStatus
    attempt: int
    data: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one attempt: who holds it. The holder's own row says until when (``Store.heartbeat``)."""

    holder: str


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """What the holder of an attempt appends and changes, in one transaction.

    It applies only while the row's ``attempt`` equals *attempt* and the task is not terminal; otherwise the whole
    write is refused as stale. ``events`` carry their seq: the holder is the only writer of its attempt.
    ``None`` leaves a column alone. ``requeue`` gives the lease up: the task waits again; ``lost`` counts a failure.
    ``deliver`` asks for a webhook delivery row in the same transaction.
    """

    task_id: str
    attempt: int
    events: tuple[Event, ...]
    status: TaskStatus | None = None
    output: str | None = None
    error: str | None = None
    error_code: str | None = None
    requeue: bool = False
    lost: bool = False
    deliver: str | None = None


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A message to a running task: durable and ordered by ``seq``."""

    task_id: str
    seq: int
    at: int
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """What the dispatcher must know of a waiting task to decide who is next."""

    id: str
    kind: str
    owner_id: str
    lane: str
    run_at: int | None
    created_at: int


@dataclass(slots=True)
class Snapshot:
    """The newest live state of a running task: what a late reader gets first. JSON-able values."""

    progress: dict[str, object] | None = None
    partial_output: object = None
    extra: dict[str, object] = field(default_factory=dict)
