"""What the WebSocket stands on, filled by wiring: somebody who knows keys, and dialogues to hand frames to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from bakehouse.core.identity import Caller
from bakehouse.inferlets.talk import Frame, Wire

#: The extension of a WebSocket's scope that is the `Wire` to its client.
WIRE = "bakehouse.wire"


class Link(Protocol):
    """One client's dialogue."""

    async def talk(self, wire: Wire, first: Frame | None) -> None:
        """Until the client is gone, or the dialogue's host. The frame *first* was read before; to be called once."""


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
