"""The contract of grammars: compiled once per tokenizer, matched per sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from bakehouse.engine.params import GrammarSpec


class Matcher(ABC):
    """Where one sequence stands in a grammar. Used by one thread at a time; `masks` may run on a worker thread.

    A method that computes raises `LimitExceeded` where a grammar grows too complex to follow; then only `reset` helps.
    """

    @abstractmethod
    def mask(self) -> bytes:
        """The ids allowed next, packed as `brle.to_bits` packs them, `vocab_size` bits.

        Special ids are never allowed, except stop ids exactly where the grammar could end. All false when terminated.
        """

    @abstractmethod
    def masks(self, drafts: Sequence[int]) -> list[bytes]:
        """``[mask here, mask after drafts[0], ...]``, ended early by a draft that does not fit. Changes nothing."""

    @abstractmethod
    def accept(self, tokens: Sequence[int]) -> None:
        """Advance. A token that does not fit raises `BadRequest`; the ones before it stay accepted."""

    @property
    @abstractmethod
    def terminated(self) -> bool:
        """True once a stop id was accepted."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """True where nothing but a stop id can follow."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the start."""

    @abstractmethod
    def copy(self) -> Matcher:
        """One that stands at the same place and goes its own way."""


class Compiler(ABC):
    """Of one tokenizer. Thread-safe; compiled grammars are cached, least recently used first out."""

    @abstractmethod
    def matcher(self, spec: GrammarSpec, owner: str = "") -> Matcher:
        """A matcher at the start of *spec*, whose memory counts for *owner*.

        Raises `BadRequest` with what is wrong and where, `LimitExceeded` where the owner has too much in use.
        """

    @abstractmethod
    def tool_matcher(self, family: str, tools: Sequence[str], owner: str = "") -> Matcher:
        """A matcher that forces one call of one of *tools* (JSON texts), as the chat format *family* writes it.

        It may name special tokens, which other grammars never allow. Raises as `matcher` does, also for a family that
        has no form of calls and for a tool that is no JSON object with a name.
        """
