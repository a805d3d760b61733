"""Tokenizers in Hugging Face layout: ``tokenizer.json`` by the tokenizers library, the rest from files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.tokenizer import alphabet
from bakehouse.engine.tokenizer.base import Tokenizer
from bakehouse.engine.tokenizer.files import TokenizerFiles, read_tokenizer_files

#: The named special tokens of ``tokenizer_config.json``.
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class HFTokenizer(Tokenizer):
    """A fast tokenizer. The bytes of each id are worked out once, when it is made.

    ``chat_templates`` are the model's Jinja templates by name, "default" first among them where there is one;
    ``special_tokens`` the named ones (``bos_token``, ``eos_token``...), as templates expect them.
    """

    def __init__(
        self,
        fast: tokenizers.Tokenizer,
        *,
        vocab_size: int | None = None,
        config: Mapping[str, Any] | None = None,
        chat_templates: Mapping[str, str] | None = None,
        source: str = "tokenizer.json",
    ) -> None:
        """*vocab_size* is the model's, by default the tokenizer's own. Raises `ModelRefused`, which names *source*."""
        config = config or {}
        fast.no_padding()
        fast.no_truncation()
        self._fast = fast
        self._decoder = _spec(fast.decoder)
        self.chat_templates = dict(chat_templates or {})
        self.special_tokens = {key: _content(config[key]) for key in _NAMED if config.get(key)}
        self._added = {int(t): token for t, token in fast.get_added_tokens_decoder().items()}
        self._bytes = self._all_bytes(source)
        self.vocab_size = len(self._bytes) if vocab_size is None else vocab_size
        self._check_size(source)
        self.special_ids = frozenset(self._find_specials(config))
        self.drops_leading_space = alphabet.drops_leading_space(self._decoder)
        self._newline = self._raw("\n")
        self._prefixes = self._raw("\na")[len(self._newline) :] != self._raw("a")

    @classmethod
    def from_folder(cls, folder: str | Path, vocab_size: int | None = None) -> HFTokenizer:
        """The tokenizer of a model's folder. Raises `ModelRefused` with the file that is missing or broken."""
        files: TokenizerFiles = read_tokenizer_files(Path(folder))
        return cls(
            files.fast,
            vocab_size=vocab_size,
            config=files.config,
            chat_templates=files.chat_templates,
            source=files.source,
        )

    def encode(self, text: str) -> list[int]:
        return self._in_vocabulary(self._raw(text))

    def encode_next(self, text: str) -> list[int]:
        """A tokenizer that puts a space in front of its text is given a line before it, whose ids are dropped."""
        if not self._prefixes:
            return self.encode(text)
        ids = self._raw("\n" + text)
        fits = ids[: len(self._newline)] == self._newline
        return self._in_vocabulary(ids[len(self._newline) :] if fits else self._raw(text))

    def splits_between(self, before: str, after: str) -> bool:
        """An added token stands alone, unless it takes the space beside it; what lies between two is encoded alone."""
        return not self._prefixes and (before.endswith(self._ends_added) or after.startswith(self._starts_added))

    def decode(self, ids: Sequence[int]) -> str:
        text = b"".join(self.token_bytes(token) for token in ids).decode("utf-8", "replace")
        return text[1:] if self.drops_leading_space and text.startswith(" ") else text

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def id_of(self, text: str) -> int | None:
        for spelled in (text, self._spell(text)):
            token = self._fast.token_to_id(spelled)
            if token is not None and token < self.vocab_size and self.token_bytes(token) == text.encode():
                return int(token)
        return None

    def split_regex(self) -> str:
        return alphabet.split_regex(_spec(self._fast.pre_tokenizer))

    @cached_property
    def _ends_added(self) -> tuple[str, ...]:
        return tuple(t.content for t in self._added.values() if self._stands_alone(t) and not t.rstrip)

    @cached_property
    def _starts_added(self) -> tuple[str, ...]:
        return tuple(t.content for t in self._added.values() if self._stands_alone(t) and not t.lstrip)

    def _stands_alone(self, token: tokenizers.AddedToken) -> bool:
        return not token.single_word and (not token.normalized or self._fast.normalizer is None)

    def _raw(self, text: str) -> list[int]:
        return list(self._fast.encode(alphabet.well_formed(text), add_special_tokens=False).ids)

    def _in_vocabulary(self, ids: list[int]) -> list[int]:
        if ids and max(ids) >= self.vocab_size:
            name = self._fast.id_to_token(max(ids))
            raise BadRequest.at("text", f"it holds the token {name!r}, which this model has no row for")
        return ids

    def _spell(self, text: str) -> str:
        if self._byte_level:
            return alphabet.byte_level_spelling(text.encode())
        return text.replace(" ", alphabet.METASPACE)

    @property
    def _byte_level(self) -> bool:
        return alphabet.spelling(self._decoder) == "byte_level"

    def _all_bytes(self, source: str) -> list[bytes]:
        kind = alphabet.spelling(self._decoder)
        if kind is None:
            decoder = (self._decoder or {}).get("type", "none")
            raise ModelRefused(
                f"{source}: its decoder ({decoder}) is neither byte-level nor of SentencePiece's kind, "
                "so the bytes behind its tokens are not known"
            )
        to_bytes = alphabet.byte_level_bytes if kind == "byte_level" else alphabet.metaspace_bytes
        vocabulary = self._fast.get_vocab(with_added_tokens=True)
        result = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            result[index] = to_bytes(token)
        for index, added in self._added.items():
            result[index] = added.content.encode()
        return result

    def _check_size(self, source: str) -> None:
        ordinary = max((i for i in range(len(self._bytes)) if i not in self._added), default=-1)
        if ordinary >= self.vocab_size:
            raise ModelRefused(
                f"{source}: its largest ordinary id is {ordinary}, but the model has {self.vocab_size} rows"
            )

    def _find_specials(self, config: Mapping[str, Any]) -> Iterable[int]:
        yield from (index for index, added in self._added.items() if added.special)
        named: list[Any] = [config[key] for key in _NAMED if config.get(key)]
        extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
        named += list(extra.values()) if isinstance(extra, Mapping) else list(extra)
        for token in named:
            index = self._fast.token_to_id(_content(token))
            if index is not None:
                yield index


def _content(token: Any) -> str:
    """A special token is written as its text, or as a table with its text and its flags."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _spec(part: Any) -> dict[str, Any] | None:
    """What ``tokenizer.json`` says of one part. The whole file would be read again for its small ends."""
    return None if part is None else dict(json.loads(part.__getstate__()))
