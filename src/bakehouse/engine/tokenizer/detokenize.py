"""Incremental detokenisation: ids in, complete characters out."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from bakehouse.engine.tokenizer.base import Tokenizer


class Detokenizer:
    """Joins the bytes of tokens and gives out what is complete. What all calls gave, joined, is ``decode`` of all ids.

    Costs time in proportion to the new tokens only. Not for use by two threads at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        """Back to the start of a text."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = self._tokenizer.drops_leading_space

    def feed(self, ids: Iterable[int]) -> str:
        """The characters that *ids* complete. A character that is cut waits for its other bytes."""
        return self._out(self._utf8.decode(b"".join(self._tokenizer.token_bytes(token) for token in ids)))

    def finish(self) -> str:
        """U+FFFD for a character that never became complete, else nothing. `reset` before the next text."""
        return self._out(self._utf8.decode(b"", final=True))

    def _out(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text
