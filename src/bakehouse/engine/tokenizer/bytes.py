"""One id per byte, and the special tokens of ChatML, thinking and tools after them: a tokenizer without files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bakehouse.engine.tokenizer.alphabet import well_formed
from bakehouse.engine.tokenizer.base import Tokenizer

#: Ids 256 and up, in this order. The first three mark turns and ends; the others stand for their own text.
SPECIALS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
IM_START, IM_END, END_OF_TEXT = 256, 257, 258
VOCAB_SIZE = 256 + len(SPECIALS)

_TABLE = tuple(bytes([byte]) for byte in range(256)) + tuple(name.encode() for name in SPECIALS)
_IDS = {name: 256 + index for index, name in enumerate(SPECIALS)}
_SPLIT = re.compile("(" + "|".join(re.escape(name) for name in SPECIALS) + ")")


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are the bytes of UTF-8."""

    vocab_size = VOCAB_SIZE
    special_ids = frozenset((IM_START, IM_END, END_OF_TEXT))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for index, piece in enumerate(_SPLIT.split(text)):
            ids += (_IDS[piece],) if index % 2 else _utf8(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        return _TABLE[token] if 0 <= token < VOCAB_SIZE else b""

    def id_of(self, text: str) -> int | None:
        if text in _IDS:
            return _IDS[text]
        ids = _utf8(text)
        return ids[0] if len(ids) == 1 else None

    def split_regex(self) -> str:
        return ""


def _utf8(text: str) -> bytes:
    return well_formed(text).encode()
