"""Who may speak over the WebSocket, and to whom: of `bakehouse serve` the dialogues are the node's."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bakehouse.api.inferlets import Inferlets, Link
from bakehouse.core.errors import TooMany, Unauthorized, Unavailable
from bakehouse.core.identity import Caller
from bakehouse.inferlets.remote import HostLost
from bakehouse.inferlets.talk import Frame, RemoteDialogue, Wire
from bakehouse.service.keys import Keys
from bakehouse.wiring.node import DIALOGUE_SOCKET
from bakehouse.wiring.nodes import Node

MOST_OF_OWNER, MOST, MOST_UNKNOWN = 64, 1024, 64
"""Connections at one time: of one owner, in all, and of clients that have not said who they are."""


class KeyedInferlets(Inferlets):
    """Asks for keys, and gives each owner places. Where clients need no key, all of them are *everybody*."""

    def __init__(self, keys: Keys, everybody: Caller | None = None) -> None:
        self.open_to_all = everybody is not None
        self._keys, self._everybody = keys, everybody
        self._places: Counter[str] = Counter()
        self._unknown = 0

    @contextmanager
    def knock(self) -> Iterator[None]:
        """See `Inferlets`."""
        if self._unknown >= MOST_UNKNOWN:
            raise TooMany(f"{MOST_UNKNOWN} clients are about to say who they are; send the key as a header")
        self._unknown += 1
        try:
            yield
        finally:
            self._unknown -= 1

    async def authenticate(self, token: str | None) -> Caller:
        """See `Inferlets`."""
        if self._everybody is not None:
            return self._everybody
        if token is None:
            raise Unauthorized("send an API key as: Authorization: Bearer <key>")
        caller = await self._keys.authenticate(token)
        caller.need("run")
        return caller

    async def open(self, caller: Caller) -> Link:
        """See `Inferlets`."""
        owner = caller.owner_id
        if self._places[owner] >= MOST_OF_OWNER or self._places.total() >= MOST:
            raise TooMany(f"an owner may have {MOST_OF_OWNER} connections at one time, all together {MOST}")
        self._places[owner] += 1
        try:
            return _Placed(await self._link(caller), self._places, owner)
        except BaseException:
            self._places[owner] -= 1
            raise

    @abstractmethod
    async def _link(self, caller: Caller) -> Link:
        """A dialogue. Raises Unavailable."""


class NodeInferlets(KeyedInferlets):
    """Whose key it is decides whose programs and processes a client sees: those of its owner's tasks too."""

    def __init__(self, node: Node, keys: Keys) -> None:
        super().__init__(keys)
        self._node = node

    async def _link(self, caller: Caller) -> Link:
        try:
            path = await self._node.beside(DIALOGUE_SOCKET)
            return await RemoteDialogue.connect(path, caller.owner_id, caller.owner_name, caller.scopes)
        except (HostLost, OSError) as error:
            raise Unavailable(f"the node cannot be reached: {error}", retry_after=2) from error


class _Placed(Link):
    """A dialogue that gives its owner's place back at its end."""

    def __init__(self, dialogue: Link, places: Counter[str], owner: str) -> None:
        self._dialogue, self._places, self._owner = dialogue, places, owner

    async def talk(self, wire: Wire, first: Frame | None) -> None:
        try:
            await self._dialogue.talk(wire, first)
        finally:
            self._places[self._owner] -= 1
