"""The contract of tokenizers: text to ids and back, with the bytes behind each id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property


class Tokenizer(ABC):
    """Immutable once made; may be used from any thread."""

    #: Size of the id space that masks and logits use: the model's, which may be larger than the tokenizer's.
    vocab_size: int
    #: Ids that stand for no text of their own: turn marks, end of text and the like.
    special_ids: frozenset[int]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of *text*. Special tokens that occur in it become their single ids; none is ever added."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of *ids*; special tokens are kept, broken UTF-8 becomes U+FFFD, unknown ids become nothing."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that *token* stands for, of a special token those of its name; empty for an unknown id."""

    @abstractmethod
    def id_of(self, text: str) -> int | None:
        """The id of the special or ordinary token spelled exactly *text*, or None."""

    @abstractmethod
    def split_regex(self) -> str:
        """The pre-tokenizer's regular expression, or an empty string."""

    @cached_property
    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        """Every id that stands for something, and its bytes, as parallel lists."""
        ids = [token for token in range(self.vocab_size) if self.token_bytes(token)]
        return ids, [self.token_bytes(token) for token in ids]
