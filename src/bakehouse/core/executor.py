"""The one contract that dispatch drives. An executor runs the attempts of one kind of task.

Wiring registers an executor per kind (``app``, ``build``, ``inferlet``; later engine, agent). Every method is called
from the server's event loop and returns at once; what happens later arrives at the call's sink, in order, from the
same loop, and ends with exactly one outcome (``Finished``, ``Lost`` or ``Returned``). After the outcome an executor
never calls the sink again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bakehouse.core.app import Version
from bakehouse.core.task import Task, TaskStatus


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt to run. ``app_ref`` is ``namespace/name@short_id``; ``version`` is None for kinds without apps."""

    task: Task
    attempt: int
    version: Version | None
    context: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Moved:
    """The attempt entered *status* (PREPARING to RUNNING)."""

    status: TaskStatus


@dataclass(frozen=True, slots=True)
class Logged:
    """Lines that were written; ``stream`` is stdout, stderr, log or system."""

    stream: str
    lines: list[str]
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    current: float
    total: float
    message: str | None = None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file in the call's outbox: ``path`` on this machine, to be put where ``pointer`` (RFC 6901) points."""

    pointer: str
    path: Path
    filename: str
    content_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Yielded:
    """A partial output; the newest replaces the one before."""

    output: Any
    files: list[OutputFile] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages of the call to its caller, JSON values: durable, in order, each shown once to every reader."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed model answer."""

    delta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed. ``message`` is one short line, ``traceback`` goes to the logs, ``code`` is for programs."""

    message: str
    code: str = "app_error"
    traceback: str = ""
    fields: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome: an output, a failure, or (both None and ``cancelled``) a cancelled call."""

    output: Any = None
    files: list[OutputFile] = field(default_factory=list)
    failure: Failure | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The outcome: what ran the attempt is gone (killed, crashed). ``retry``: another attempt may help."""

    reason: str
    code: str = "instance_lost"
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Returned:
    """The outcome: the call never began to run; it goes back to the queue and no failure is counted."""

    reason: str


ExecutorEvent = Moved | Logged | Progressed | Yielded | Sent | Delta | Finished | Lost | Returned
Sink = Callable[[ExecutorEvent], None]


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many more calls of a lane are taken now.

    ``ready``: by idle or startable instances; ``prefetch``: held by busy ones. ``bound``: the lane has an instance of
    its own (a session's), so that others giving theirs up would not help it.
    """

    ready: int
    prefetch: int = 0
    bound: bool = False


class Executor(Protocol):
    """Runs the attempts of one kind of task on this machine or cluster."""

    def capacity(self, lane: str) -> Capacity:
        """How much of *lane* fits now. Pure look-up; called often."""
        ...

    def on_capacity(self, wake: Callable[[], None]) -> None:
        """Register what to call (from the loop, cheaply, possibly spuriously) when capacity may have grown."""
        ...

    def start(self, call: Call, sink: Sink) -> None:
        """Begin *call*. Never raises for the call's own faults: they arrive as the outcome."""
        ...

    def send(self, task_id: str, item: dict[str, Any]) -> bool:
        """Hand an inbox item to a running call; False when it is not here."""
        ...

    def cancel(self, task_id: str, *, grace: float | None = None, reason: str = "cancelled") -> None:
        """Cancel a call: cooperatively, then by force after *grace* seconds (None: the executor's setting).

        Repeatable; unknown ids are ignored.
        """
        ...

    def end_session(self, session_id: str) -> None:
        """Give up the instance that is leased to *session_id*, after its running call."""
        ...

    async def start_up(self) -> None:
        """Prepare to take calls: sweep what an earlier server left behind."""
        ...

    async def shut_down(self, grace: float) -> None:
        """Let calls finish for *grace* seconds, then end every instance; unfinished calls get Returned or Lost."""
        ...
