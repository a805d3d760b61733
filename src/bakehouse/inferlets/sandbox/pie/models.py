"""Models and their tokenizers."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.base import PARSER, drop_nothing, packed, said, unpacked
from bakehouse.inferlets.sandbox.running import Running


@dataclass(slots=True)
class Model:
    """``handle`` is that of `Calls`. It serves as the tokenizer too."""

    handle: int
    _info: dict[str, Any] = field(default_factory=dict)

    def info(self, running: Running) -> dict[str, Any]:
        if not self._info:
            self._info.update(json.loads(running.calls.models.info(self.handle)))
        return self._info


def load(running: Running, name: str) -> Model:
    return Model(running.calls.models.load(name))


def any_model(running: Running) -> Model | None:
    """One that can be asked what does not depend on the model."""
    names = json.loads(running.calls.models.names())
    return load(running, names[0]) if names else None


def _encode(running: Running, model: Model, text: str) -> list[int]:
    return unpacked(running.calls.models.encode(model.handle, text))


def _decode(running: Running, model: Model, tokens: list[int]) -> str:
    return str(running.calls.models.decode(model.handle, packed(tokens)))


def _vocabs(running: Running, model: Model) -> tuple[list[int], list[bytes]]:
    return _listed(running.calls.models.vocabulary(model.handle))


def special_tokens(running: Running, model: Model) -> tuple[list[int], list[bytes]]:
    return _listed(running.calls.models.special_tokens(model.handle))


def _listed(text: str) -> tuple[list[int], list[bytes]]:
    """Ids and their bytes: a line with their number, the ids, the lengths, the bytes."""
    head, _, rest = text.partition("\n")
    count, data = int(head), rest.encode("latin-1")
    numbers = array("I", data[: 8 * count]).tolist()
    found, at = [], 8 * count
    for length in numbers[count:]:
        found.append(data[at : at + length])
        at += length
    return numbers[:count], found


def _split_regex(running: Running, model: Model) -> str:
    return str(running.calls.models.split_regex(model.handle))


_TABLE: dict[str, Callable[..., Any]] = {
    "[static]model.load(string) -> result<own<model>, error>": load,
    "[method]model.tokenizer(borrow<model>) -> own<tokenizer>": lambda _, model: model,
    "[method]tokenizer.encode(borrow<tokenizer>, string) -> list<u32>": _encode,
    "[method]tokenizer.decode(borrow<tokenizer>, list<u32>) -> result<string, error>": _decode,
    "[method]tokenizer.vocabs(borrow<tokenizer>) -> tuple<list<u32>, list<list<u8>>>": _vocabs,
    "[method]tokenizer.split-regex(borrow<tokenizer>) -> string": _split_regex,
    "[method]tokenizer.special-tokens(borrow<tokenizer>) -> tuple<list<u32>, list<list<u8>>>": special_tokens,
}


def interfaces() -> Iterator[Interface]:
    yield Interface("pie:core/model@0.2.0", said, PARSER, _TABLE, {"model": drop_nothing, "tokenizer": drop_nothing})
