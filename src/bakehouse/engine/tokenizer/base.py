"""The contract of tokenizers: text to ids and back, with the bytes behind each id."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property


class Tokenizer(ABC):
    """Immutable once made; may be used from any thread."""

    #: Size of the id space that masks and logits use: the model's, which may be larger than the tokenizer's.
    vocab_size: int
    #: Ids that stand for no text of their own: turn marks, end of text and the like.
    special_ids: frozenset[int]
    #: True where decoding leaves out one space at the very start, because encoding put one there.
    drops_leading_space: bool = False

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

    def encode_next(self, text: str) -> list[int]:
        """Ids of *text* where it goes on from other text: as `encode`, but no space is ever put in front."""
        return self.encode(text)

    def encode_text(self, text: str, *, start: bool = True) -> list[int]:
        """Ids of *text* as somebody typed it: what looks like a special token in it is spelled in ordinary tokens.

        ``start`` False says that other text came before.
        """
        ids: list[int] = []
        for piece in self.without_specials(text):
            ids += self.encode(piece) if start and not ids else self.encode_next(piece)
        return ids

    def without_specials(self, text: str) -> list[str]:
        """*text* in pieces that hold no special token's name: a name that occurs is cut after its first character."""
        pieces, begin = [], 0
        for match in self._special_names.finditer(text):
            pieces.append(text[begin : match.start() + 1])
            begin = match.start() + 1
        pieces.append(text[begin:])
        return pieces

    def splits_between(self, before: str, after: str) -> bool:
        """True where the ids of both together are surely those of *before* and then those of *after*."""
        return False

    @cached_property
    def _special_names(self) -> re.Pattern[str]:
        """Where a name begins; overlapping ones are all found. A name of one character cannot be cut, so it stays."""
        names = (self.token_bytes(token).decode("utf-8", "replace") for token in self.special_ids)
        found = sorted((re.escape(name) for name in names if len(name) > 1), key=len, reverse=True)
        return re.compile(f"(?={'|'.join(found)})" if found else r"(?!)")

    @cached_property
    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        """Every id that stands for something, and its bytes, as parallel lists."""
        ids = [token for token in range(self.vocab_size) if self.token_bytes(token)]
        return ids, [self.token_bytes(token) for token in ids]
