"""Flows: what the client does, written once and without I/O.

A flow is a generator that yields operations and is sent their answers. A driver (``_drivers.py``) carries the
operations out, synchronously or asynchronously. An operation that meets a broken connection throws `ConnectionFailed`
into the flow.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Generic, Protocol, TypeVar

from inferencesh._errors import ConnectionFailed
from inferencesh._models import Task

T = TypeVar("T")


class Source(Protocol):
    """Bytes that are read piece by piece, and can be read again from the start."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def open(self) -> BinaryIO:
        """The bytes from their start; closing it must leave the source readable again."""


@dataclass(frozen=True)
class Request:
    """An HTTP request. ``timeout``: seconds without a byte; ``repeatable``: sending it twice does no harm."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Source | None = None
    timeout: float = 30.0
    repeatable: bool = True


@dataclass(frozen=True)
class Reply:
    """An HTTP answer. Header names are lower case; ``body`` is empty for the head of a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Op:
    """Something that a driver does for a flow."""


@dataclass(frozen=True)
class Send(Op):
    """Send and read the whole answer -> Reply."""

    request: Request


@dataclass(frozen=True)
class Open(Op):
    """Send and read the head of the answer -> Reply. An earlier stream of the same flow is closed first."""

    request: Request


@dataclass(frozen=True)
class Read(Op):
    """The next bytes of the open stream, at most ``limit`` -> bytes, empty at its end."""

    limit: int


@dataclass(frozen=True)
class Close(Op):
    """Close the open stream, if there is one -> None."""


@dataclass(frozen=True)
class Sleep(Op):
    """Wait -> None."""

    seconds: float


@dataclass(frozen=True)
class Emit(Op):
    """Hand an update to whoever iterates -> None."""

    update: Task


@dataclass(frozen=True)
class Call(Op):
    """Call a function of the user's; the asynchronous driver awaits what it returns, if it can be awaited -> None."""

    function: Callable[[Task], Any]
    update: Task


Flow = Generator[Op, Any, T]


def send(request: Request) -> Flow[Reply]:
    """`Send`, typed."""
    reply: Reply = yield Send(request)
    return reply


def open_stream(request: Request) -> Flow[Reply]:
    """`Open`, typed."""
    reply: Reply = yield Open(request)
    return reply


def read(limit: int) -> Flow[bytes]:
    """`Read`, typed."""
    chunk: bytes = yield Read(limit)
    return chunk


class Steps(Generic[T]):
    """Steps through a flow for a driver: iterate over the operations, answering each with ``reply`` or ``fail``.

    ``value`` is what the flow returned, once the iteration is over.
    """

    value: T

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self._answer: Any = None
        self._failure: ConnectionFailed | None = None

    def __iter__(self) -> Iterator[Op]:
        return self

    def __next__(self) -> Op:
        answer, failure = self._answer, self._failure
        self._answer = self._failure = None
        try:
            return self._flow.send(answer) if failure is None else self._flow.throw(failure)
        except StopIteration as stop:
            self.value = stop.value
            raise

    def reply(self, answer: Any) -> None:
        self._answer = answer

    def fail(self, error: ConnectionFailed) -> None:
        self._failure = error

    def close(self) -> None:
        """Let the flow clean up. May be repeated."""
        self._flow.close()
