"""What is said of an instance: what to launch, what it may use, what comes out of it, and whom it may ask.

An instance is one running program. It has a thread of its own; whatever is called from there says so.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance may use. Sizes are bytes, times seconds. The error of one that is hit names its field."""

    memory: int = 256 * MIB
    cpu: float = 60.0
    wall: float = 3600.0
    contexts: int = 256
    pages: int = 65536
    matchers: int = 256
    waits: int = 4096
    message: int = MIB
    file: int = 64 * MIB
    queue: int = 1024
    children: int = 16
    depth: int = 8
    #: Host calls a second, over ten seconds; waiting costs nothing.
    calls: int = 200_000
    output: int = 16 * MIB

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{name}: must be a number above 0, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLimits:
    """What all instances of one owner may use together; queues and their bytes are those of messaging.

    ``programs`` are the bytes of all that is installed; a file of several programs counts once.
    """

    instances: int = 128
    memory: int = 8192 * MIB
    topics: int = 4096
    queued: int = 65536
    queued_bytes: int = 64 * MIB
    programs: int = 8192 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One program to run. ``program`` is ``name@1.2.3`` of the programs that are installed for ``owner``."""

    id: str
    owner: str
    username: str
    program: str
    arguments: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    #: The instance that spawned this one, and how many are above it.
    parent: str | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance ended badly. ``limit`` names the limit that was hit; ``traceback`` is the guest's."""

    code: str
    message: str
    limit: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an instance ended: its result, or a failure."""

    result: str = ""
    failure: Failure | None = None


class Outlet(Protocol):
    """Where an instance's output goes. Called from the instance's threads, in order; must not block for long."""

    def message(self, text: str) -> None: ...

    def file(self, data: bytes) -> None: ...

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """A line that it printed, with its end; or a piece of a line that is long or has none."""

    def ended(self, outcome: Outcome) -> None:
        """Called once, last, after everything that the instance held was freed."""


class Messaging(Protocol):
    """Topics of one owner; thread-safe.

    Errors: `BadRequest` for what cannot be a topic's name, `Refused` for what is over a limit of the owner.
    """

    def push(self, owner: str, topic: str, message: str) -> None: ...

    def pull(self, owner: str, topic: str) -> Future[str]:
        """The topic's next message. It is taken by `Future.result`.

        Cancelling the future gives its place in the line up; a message that is there and was not taken goes back to
        the head of the topic, so that none is lost with whoever waited for it.
        """

    def broadcast(self, owner: str, topic: str, message: str) -> None: ...

    def subscribe(self, owner: str, topic: str, call: Callable[[str], bool | None]) -> Callable[[], None]:
        """*call* gets each message from now on, from any thread; the function that is returned ends it.

        *call* answers False when it has no room: the message is missed then, and counted.
        """


class McpSession(Protocol):
    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        """The result as the server gave it, plain JSON. `McpFailed`."""

    def close(self) -> None: ...


class McpServers(Protocol):
    """The MCP servers that an operator configured, or that a launching client relays."""

    def names(self, launch: Launch) -> list[str]: ...

    def connect(self, launch: Launch, name: str) -> Future[McpSession]: ...


class Services(Protocol):
    """Whom an instance may ask beside the engine. One for all instances of a host."""

    messaging: Messaging
    mcp: McpServers

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        """The child's result. Cancelling it, and the parent's end, end the child.

        Raises at once `BadProgram` for what is no reference, `NoSuchProgram`, and `Refused` for what is over a limit.
        The future fails with `SpawnFailed` where the child ends badly.
        """
