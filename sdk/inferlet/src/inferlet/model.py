"""Served models and their tokenizers. Nothing here waits."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, overload

from inferlet._host import Host, host
from inferlet._packing import pack_ids, unpack_bytes, unpack_ids


class Model:
    """A served model; `load` gives it. What it says of itself is asked for once."""

    def __init__(self, host: Host, handle: int) -> None:
        self._host = host
        self._handle = handle

    @classmethod
    def load(cls, name: str) -> Model:
        """The model of that name, one of `runtime.models`; nothing is read from disk. Raises `NotFound`."""
        found = host()
        return cls(found, found.models.load(name))

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer; always the same object."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self)

    @cached_property
    def info(self) -> dict[str, Any]:
        """Everything below, by name, as the host gave it."""
        found: dict[str, Any] = json.loads(self._host.models.info(self._handle))
        return found

    @property
    def name(self) -> str:
        """What `load` takes."""
        return str(self.info["name"])

    @property
    def architecture(self) -> str:
        """Of the network: llama, qwen3, gemma3, ..., or dummy."""
        return str(self.info["architecture"])

    @property
    def family(self) -> str:
        """Of chat formats: qwen3, llama3, chatml, ..."""
        return str(self.info["family"])

    @property
    def vocab_size(self) -> int:
        """Ids there are: they lie below it, and a mask over the vocabulary has this length."""
        return int(self.info["vocab_size"])

    @property
    def hidden_size(self) -> int:
        """Numbers in an embedding."""
        return int(self.info["hidden_size"])

    @property
    def layers(self) -> int:
        """Blocks of the network."""
        return int(self.info["layers"])

    @property
    def max_context(self) -> int:
        """Positions that one context can have."""
        return int(self.info["max_context"])

    @property
    def page_size(self) -> int:
        """Tokens in a KV page."""
        return int(self.info["page_size"])

    @property
    def stop_tokens(self) -> list[int]:
        """Ids that end a turn."""
        return [int(token) for token in self.info["stop_tokens"]]

    def __repr__(self) -> str:
        return f"<Model {self.name!r}>"


class Tokenizer:
    """Text to ids and back, as the model's own tokenizer does it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def encode(self, text: str) -> list[int]:
        """The ids of *text*. Special tokens in it become their single ids; no beginning or end is added.

        So text of a user may open and close turns; take such markers out before, where that matters. No text gives no
        ids. Raises `BadRequest` for half a surrogate pair.
        """
        return unpack_ids(self._encoded(text)).tolist()

    def _encoded(self, text: str) -> str:
        return self.model._host.models.encode(self.model._handle, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of *ids*, with special tokens in it; broken UTF-8 becomes U+FFFD, unknown ids nothing."""
        return self.model._host.models.decode(self.model._handle, pack_ids(ids))

    def vocabs(self) -> tuple[list[int], Sequence[bytes]]:
        """Every id and its bytes, side by side. The host is asked once; bytes are cut out when they are looked at."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> tuple[list[int], Sequence[bytes]]:
        return _read_vocabulary(self.model._host.models.vocabulary(self.model._handle))

    def special_tokens(self) -> tuple[list[int], list[bytes]]:
        """The same of special tokens only."""
        ids, pieces = _read_vocabulary(self.model._host.models.special_tokens(self.model._handle))
        return ids, list(pieces)

    def split_regex(self) -> str:
        """The regular expression that cuts text before it is encoded; empty where the tokenizer has none."""
        return self.model._host.models.split_regex(self.model._handle)


class Pieces(Sequence[bytes]):
    """Byte strings that lie one behind the other; each is cut out when it is asked for."""

    def __init__(self, data: bytes, lengths: Iterable[int]) -> None:
        self._data = data
        self._ends = array("I", accumulate(lengths, initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._data[self._ends[at] : self._ends[at + 1]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return list(self) == list(other)

    __hash__: ClassVar[None]  # type: ignore[assignment]


def _read_vocabulary(packed: str) -> tuple[list[int], Pieces]:
    """A line with their number n, then n ids and n lengths of 32 bits each, then all bytes."""
    head = packed.index("\n")
    count, start = int(packed[:head]), head + 1
    numbers = unpack_ids(packed[start : start + 8 * count])
    return numbers[:count].tolist(), Pieces(unpack_bytes(packed[start + 8 * count :]), numbers[count:])
