"""Both ends of a socket between processes of ours: numbered requests at the one, clients at the other.

What is asked and answered is the business of who uses this: the engine's messages, or those of an inferlet host.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bakehouse.engine import wire
from bakehouse.engine.errors import EngineLost
from bakehouse.engine.link import Link
from bakehouse.engine.wire import Frame, Hello, WireError

#: Says why the connection ended, once that is known: the supervisor waits for the exit status.
Why = Callable[[str], Awaitable[EngineLost]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A kind of server: its ``name`` in texts, its ``version`` of the messages, and the errors it is the cause of.

    ``lost`` makes the error of a connection that is none, ``silent`` that of no answer; ``read_error`` reads what it
    answers: a kind, a text and the name of a field, or None.
    """

    name: str
    version: int
    lost: Callable[[str], Exception]
    silent: Callable[[str], Exception]
    read_error: Callable[[Any, Any, Any], Exception]


class Channel:
    """The asking end: each request has a number, which its answer comes back with.

    ``on_item`` gets every other item that comes: its kind, its second part, the rest, and the tail of its frame. Errors
    with a number that nobody waits for are among them. ``on_over`` is called once, when all that waited has its error,
    with the text of it.
    """

    def __init__(
        self,
        peer: Peer,
        on_item: Callable[[str, Any, list[Any], memoryview], None],
        on_over: Callable[[str], None],
        why: Why | None = None,
    ) -> None:
        self.link = Link(self._on_frame, self._on_lost)
        self._peer, self._on_item, self._on_over, self._why = peer, on_item, on_over, why
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._greeting: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._farewell = ""
        self._lost: str | None = None
        self._over = asyncio.Event()
        self._explaining: asyncio.Task[None] | None = None

    async def connect(self, path: Path, timeout: float) -> None:
        """Connect to the server that listens at *path*; once.

        Raises the peer's ``lost`` where none does, or one of another version; ``silent`` after *timeout* seconds.
        """
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self.link, str(path))
        except OSError as error:
            raise self._peer.lost(f"no {self._peer.name} listens at {path}: {error.strerror or error}") from error
        try:
            await self._greet(path, timeout)
        except BaseException:
            self.close()
            raise

    async def _greet(self, path: Path, timeout: float) -> None:
        peer = self._peer
        self.send(wire.message_body(Hello(peer.version)))
        try:
            version = await asyncio.wait_for(self._greeting, timeout)
        except TimeoutError:
            raise peer.silent(f"the {peer.name} at {path} did not answer in {timeout:g} s") from None
        if version != peer.version:
            raise peer.lost(f"the {peer.name} at {path} speaks version {version}, this program {peer.version}")

    @property
    def open(self) -> bool:
        """Whether requests can be answered."""
        return self._lost is None and self.link.open

    async def over(self) -> None:
        """Wait until the connection is over, however it ended."""
        await self._over.wait()

    def close(self) -> None:
        """Close the connection. May be repeated, also when it was lost."""
        self._finish("the connection was closed by this program")
        self.link.close()

    # Asking

    def number(self) -> int:
        """A number that nothing has yet."""
        return next(self._numbers)

    async def ask(self, number: int, body: Any) -> Any:
        """Send *body*, which tells *number*, and wait for its answer.

        Raises what the peer answers, the peer's ``lost``, and `LimitExceeded` for a body that is too large. Cancelling
        this tells the peer nothing.
        """
        if self._lost is not None:
            raise self._peer.lost(self._lost)
        frame = wire.dump(body)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self.link.send(frame)
            if self.link.behind:
                await self.link.writable()
            return await answer
        finally:
            self._waiting.pop(number, None)

    def send(self, body: Any) -> None:
        """Send what has no answer; nothing happens when the peer is gone."""
        self.link.send(wire.dump(body))

    # Answers

    def _on_frame(self, link: Link, frame: Frame) -> None:
        if not self._greeting.done() and isinstance(frame.body, dict):
            message = wire.read_message(frame.body)
            self._greeting.set_result(message.version if isinstance(message, Hello) else None)
            return
        try:
            for kind, which, *rest in frame.body:
                if not self._is_answer(kind, which, rest, frame.tail):
                    self._on_item(kind, which, rest, frame.tail)
        except (TypeError, ValueError, IndexError) as error:
            raise WireError(f"an item that cannot be read: {error}") from error

    def _is_answer(self, kind: str, number: int, rest: list[Any], tail: memoryview) -> bool:
        if kind == "e" and number == 0:
            self._farewell = str(rest[1])
            return True
        waiting = self._waiting.get(number) if kind in ("r", "e") else None
        if waiting is None or waiting.done():
            return kind == "r"  # it was given up
        if kind == "r":
            waiting.set_result(wire.load_value(rest[0], tail))
        else:
            waiting.set_exception(self._peer.read_error(*rest))
        return True

    # The end

    def _on_lost(self, link: Link, reason: str) -> None:
        if self._lost is None:
            self._explaining = asyncio.get_running_loop().create_task(self._explain(reason))

    async def _explain(self, reason: str) -> None:
        if self._farewell:
            self._finish(self._farewell)
        elif self._why is not None:
            self._finish((await self._why(reason)).detail)
        else:
            self._finish(f"the {self._peer.name} closed the connection" + (f": {reason}" if reason else ""))

    def _finish(self, text: str) -> None:
        """Everything that still waits ends with the error of *text*."""
        if self._lost is not None:
            return
        self._lost = text
        self._over.set()
        for answer in (self._greeting, *self._waiting.values()):
            if not answer.done():
                answer.set_exception(self._peer.lost(text))
        self._on_over(text)


class Connected(Protocol):
    """A client of a `Listener`, which looks after what came over its ``link``."""

    @property
    def link(self) -> Link: ...


Client = TypeVar("Client", bound=Connected)


class Listener(ABC, Generic[Client]):
    """The answering end: listens at *path*, to this user only, and knows its clients."""

    def __init__(self, path: Path) -> None:
        self.stopping = False
        self._path = path
        self._clients: set[Client] = set()
        self._listener: asyncio.Server | None = None

    @abstractmethod
    def new_client(self) -> Client:
        """What a new connection belongs to."""

    async def start(self) -> None:
        """Listen. Raises OSError where the path cannot be bound."""
        before = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_unix_server(self._connected, str(self._path))
        finally:
            os.umask(before)

    def _connected(self) -> Link:
        client = self.new_client()
        self._clients.add(client)
        return client.link

    def forget(self, client: Client) -> None:
        """*client* is gone. May be repeated."""
        self._clients.discard(client)

    def stop_listening(self) -> None:
        """Take no new connections; the old ones stay. May be repeated."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()


def greet(link: Link, body: Any, version: int, name: str) -> None:
    """Answer *body*, the first message of a client of the server *name*; one of another version is then cut off.

    Raises `WireError` where it is no hello, or comes from another user.
    """
    message = wire.read_message(body)
    if not isinstance(message, Hello):
        raise WireError("the first message is a hello")
    if link.peer_uid not in (None, 0, os.getuid()):
        raise WireError("the socket is of another user")
    link.send(wire.dump(wire.message_body(Hello(version))))
    if message.version != version:
        link.close(f"the client speaks version {message.version}, the {name} {version}")
