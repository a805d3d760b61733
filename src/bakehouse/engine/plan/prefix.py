"""Keys of committed pages: equal keys mean equal keys and values, also across contexts, programs and owners.

A page's key is a keyed 128-bit hash of the key of the page before it and of all that its own KV depends on: ids,
positions, what each row saw where that is not simply all before it, and the adapter. The hash key is drawn per model
instance, so a key says nothing outside of it and no input can be built to collide.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import count
from typing import NamedTuple

from bakehouse.engine.brle import Ranges

KEY_BYTES = 16


class AdapterKey(NamedTuple):
    """What of an adapter the KV depends on: its slot, which weights were in it, and the seed of the noise."""

    slot: int
    generation: int
    zo_seed: int


class KeyMaker:
    def __init__(self, model: str = "", *, salt_per_owner: bool = False) -> None:
        self._secret = os.urandom(32)
        self._model = model.encode()
        self._salt_per_owner = salt_per_owner
        self._private = count(1)

    def root(self, owner: str) -> bytes:
        """What stands before the first page."""
        return self._hash(b"root", self._model, owner.encode() if self._salt_per_owner else b"")

    def private(self) -> bytes:
        """A key that no other page will ever have; all keys chained to it are as private."""
        return self._hash(b"private", next(self._private).to_bytes(8, "little"))

    def page(
        self,
        before: bytes,
        tokens: array[int],
        positions: Iterable[int],
        visible: Sequence[tuple[int, Ranges]] = (),
        adapters: Sequence[tuple[int, AdapterKey | None]] = (),
    ) -> bytes:
        """*visible*: (slot, slots seen) of rows that see something else than all slots up to their own.
        *adapters*: (first slot, adapter) of each run of rows, none for a page without."""
        body = array("q", positions).tobytes()
        if visible or adapters:
            body += repr((visible, adapters)).encode()
        return self._hash(before, tokens.tobytes(), body)

    def _hash(self, *parts: bytes) -> bytes:
        digest = blake2b(key=self._secret, digest_size=KEY_BYTES)
        for part in parts:
            digest.update(len(part).to_bytes(4, "little") + part)
        return digest.digest()
