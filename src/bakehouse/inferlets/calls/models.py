"""The served models and their tokenizers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import orjson

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.calls.base import Interface, check_packed, check_size
from bakehouse.inferlets.calls.packing import little_endian, pack, pack_ids, unpack_ids

#: Of `ModelInfo`, what a guest is told.
TOLD = (
    "name",
    "architecture",
    "family",
    "vocab_size",
    "hidden_size",
    "layers",
    "max_context",
    "page_size",
    "stop_tokens",
)

#: Packed vocabularies, megabytes each, by engine and model: made once, however many instances ask.
_vocabularies: WeakKeyDictionary[Engine, dict[str, str]] = WeakKeyDictionary()


class Models(Interface):
    def names(self) -> str:
        return orjson.dumps([info.name for info in self._guest.engine.served()]).decode()

    def load(self, name: str) -> int:
        return self._guest.open(name)

    def info(self, model: int) -> str:
        info = self._guest.models.get(model).info
        return orjson.dumps({name: getattr(info, name) for name in TOLD}).decode()

    def encode(self, model: int, text: str) -> str:
        guest = self._guest
        session = guest.models.get(model).session
        return pack_ids(session.encode(check_size("message", text, guest.limits.message, "text")))

    def decode(self, model: int, ids: str) -> str:
        guest = self._guest
        session = guest.models.get(model).session
        return session.decode(unpack_ids(check_packed("message", ids, guest.limits.message, "ids")))

    def vocabulary(self, model: int) -> str:
        found = self._guest.models.get(model)
        known = _vocabularies.setdefault(self._guest.engine, {})
        if found.info.name not in known:
            known[found.info.name] = _listing(*found.session.vocabulary())
        return known[found.info.name]

    def special_tokens(self, model: int) -> str:
        return _listing(*self._guest.models.get(model).session.special_tokens())

    def split_regex(self, model: int) -> str:
        return self._guest.models.get(model).session.split_regex()


def _listing(ids: Sequence[int], texts: Sequence[bytes]) -> str:
    lengths = little_endian(array("I", map(len, texts)))
    return f"{len(ids)}\n" + pack(little_endian(array("I", ids)) + lengths + b"".join(texts))
