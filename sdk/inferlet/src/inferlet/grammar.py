"""What may be generated: grammars, and matchers that say what may come next."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inferlet._host import Host, connected
from inferlet._packing import pack_ids
from inferlet._waits import result
from inferlet.errors import BadRequest
from inferlet.masks import Mask
from inferlet.model import Model, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Grammar", "Mask", "Matcher"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar by its text. The makers raise `BadRequest` for one that cannot be used.

    That is found out with the first served model, which may take some time for a large grammar, and is kept: a matcher
    of it is then there at once. Without a host, in an editor or a test, only JSON is looked at.
    """

    kind: str
    source: str = ""

    @staticmethod
    def from_json_schema(schema: str) -> Grammar:
        """JSON text of a schema. Keys come in its order; objects are closed but for ``additionalProperties``."""
        try:
            json.loads(schema)
        except ValueError as error:
            raise BadRequest(f"grammar.source: not JSON: {error}") from None
        except TypeError:
            raise BadRequest(f"grammar.source: must be JSON text (json.dumps), not {type(schema).__name__}") from None
        return _checked(Grammar("json_schema", schema))

    @staticmethod
    def json() -> Grammar:
        """Any JSON value."""
        return Grammar("json")

    @staticmethod
    def from_regex(pattern: str) -> Grammar:
        """All of the output matches *pattern*; anchors are not needed."""
        return _checked(Grammar("regex", pattern))

    @staticmethod
    def from_ebnf(text: str) -> Grammar:
        """Lines of ``name ::= expression``; the rule ``root`` is where it starts."""
        return _checked(Grammar("ebnf", text))

    def request(self) -> dict[str, Any]:
        """The form in which a host takes it."""
        return {"kind": self.kind, "source": self.source}


def _checked(grammar: Grammar) -> Grammar:
    found = connected()
    names = json.loads(found.models.names()) if found is not None else []
    if found is not None and names:
        wait = found.grammars.create(found.models.load(names[0]), grammar.kind, grammar.source)
        found.grammars.release(int(result(found, wait)))
    return grammar


class Matcher:
    """Where in a grammar a text is. Give it to `Context.generate` as ``logit_mask``, or step it yourself.

    A generation steps it along the tokens that its reader takes.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer) -> None:
        self._begin(tokenizer.model, int(result(tokenizer.model._host, start(grammar, tokenizer.model))))

    def _begin(self, model: Model, handle: int) -> None:
        self.model = model
        self._handle = handle
        self._host: Host = model._host

    @classmethod
    def for_tools(cls, model: Model, tools: Iterable[str]) -> Self:
        """One that forces one call of one of *tools*, each JSON text, in the format of *model*."""
        return cls._of(model, int(result(model._host, start_tools(model, tools))))

    @classmethod
    def _of(cls, model: Model, handle: int) -> Self:
        matcher = cls.__new__(cls)
        matcher._begin(model, handle)
        return matcher

    def next_token_logit_mask(self) -> Mask:
        """The ids that may come next. Stop ids may where the grammar can end; no other special token ever may."""
        return Mask(self._host, self._host.grammars.next_mask(self._handle))

    def accept_tokens(self, ids: Iterable[int]) -> None:
        """Advance. An id that does not fit is `BadRequest`; those before it stay accepted."""
        self._host.grammars.accept(self._handle, pack_ids(ids))

    @property
    def is_terminated(self) -> bool:
        """Whether a stop id was accepted. Nothing may come after it."""
        return self._host.grammars.terminated(self._handle)

    def reset(self) -> None:
        """Back to the start."""
        self._host.grammars.reset(self._handle)

    def __del__(self) -> None:
        # Where the host is gone, or the grammar was refused, there is nothing to give back.
        with contextlib.suppress(Exception):
            self._host.grammars.release(self._handle)


def start(grammar: Grammar, model: Model) -> int:
    """The wait of a new matcher's number."""
    return model._host.grammars.create(model._handle, grammar.kind, grammar.source)


def start_tools(model: Model, tools: Iterable[str]) -> int:
    return model._host.grammars.create_for_tools(model._handle, json.dumps(list(tools)))
