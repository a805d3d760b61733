"""What the WebSocket stands on, filled by wiring: somebody who knows keys, and dialogues to hand frames to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from bakehouse.core.identity import Caller

Frame = str | bytes


class Link(Protocol):
    """One client's dialogue."""

    async def feed(self, frame: Frame) -> None:
        """What the client sent. Waits while too much of what it asked is unanswered."""

    async def take(self) -> list[Frame]:
        """What is to be sent to it, as soon as there is something; nothing at the dialogue's end."""

    async def close(self) -> None:
        """The client is gone. May be repeated."""


class Inferlets(Protocol):
    """One for all clients of a server, at ``app.state.inferlets``."""

    #: Whether clients need no key.
    open_to_all: bool

    def knock(self) -> AbstractContextManager[None]:
        """A place for a client that has not said who it is, for the time of the context. Raises `TooMany`."""

    async def authenticate(self, token: str | None) -> Caller:
        """Whose key *token* is. Raises `Unauthorized`, `Forbidden`."""

    async def open(self, caller: Caller) -> Link:
        """A dialogue. Raises `TooMany`, `Unavailable`."""
