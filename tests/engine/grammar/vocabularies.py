"""Two vocabularies for grammars: bytes, and a byte-level BPE that is trained here."""

from __future__ import annotations

from functools import cache

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bakehouse.engine.tokenizer.bytes import END_OF_TEXT, IM_END, ByteTokenizer
from bakehouse.engine.tokenizer.hf import HFTokenizer

BYTE_STOP = (IM_END, END_OF_TEXT)
SPECIALS = ["<|endoftext|>", "<|im_end|>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"]
BPE_STOP = (0, 1)

_TEXT = [
    '{"name": "value", "list": [1, 2, 3], "nested": {"key": null, "flag": true}}\n' * 3,
    '  {\n    "id": 1234567890,\n    "when": "2024-05-06T07:08:09Z",\n    "mail": "someone@example.com"\n  }\n' * 3,
    "The quick brown fox jumps over the lazy dog; words and more words, é ü α 漢字.\n" * 3,
    '"}]}], "}, [[[{{{ \\"\\\\ \\u00e9 0.123456789 -1e5 false\n' * 3,
]


@cache
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@cache
def bpe_tokenizer() -> HFTokenizer:
    """Some 700 ids, with pieces that cross the borders of JSON's own lexemes. The model has 20 rows more than that."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(_TEXT, trainer)
    return HFTokenizer(fast, vocab_size=fast.get_vocab_size() + 20)
