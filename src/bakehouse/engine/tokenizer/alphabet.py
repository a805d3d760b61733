"""How vocabularies spell bytes: the two ways there are, and which one a ``tokenizer.json`` uses.

Byte-level vocabularies (GPT-2 and after) write each byte as one printable character: those that are printable in
Latin-1 stand for themselves, the others are numbered from U+0100. SentencePiece vocabularies write a space as U+2581
and a byte that is no part of a character as ``<0xNN>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

METASPACE = "\u2581"

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_characters() -> list[str]:
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
#: What is no such character goes beyond Latin-1, so that encoding tells.
_TO_BYTE = dict.fromkeys(range(256), 0x10FFFF) | {ord(c): byte for byte, c in enumerate(BYTE_CHARACTERS)}


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a byte-level vocabulary's entry; one with other characters in it stands for itself."""
    try:
        return token.translate(_TO_BYTE).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode()


def byte_level_spelling(data: bytes) -> str:
    """How a byte-level vocabulary spells *data*."""
    return "".join(BYTE_CHARACTERS[byte] for byte in data)


def metaspace_bytes(token: str) -> bytes:
    """The bytes of a SentencePiece vocabulary's entry."""
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(match[1])
    return token.replace(METASPACE, " ").encode()


def well_formed(text: str) -> str:
    """Half a surrogate pair, which is no text, becomes U+FFFD as it would on the way back."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def steps(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The single steps of a pre-tokenizer, normalizer or decoder, out of whatever sequences they stand in."""
    if part is None:
        return
    inner = next((part[key] for key in ("decoders", "pretokenizers", "normalizers") if key in part), None)
    if inner is None:
        yield part
        return
    for each in inner:
        yield from steps(each)


def spelling(decoder: dict[str, Any] | None) -> str | None:
    """``byte_level`` or ``metaspace``, or None for a decoder that is neither."""
    kinds = {step["type"] for step in steps(decoder)}
    if "ByteLevel" in kinds:
        return "byte_level"
    if kinds & {"Metaspace", "ByteFallback"} or any(_replaces_metaspace(step) for step in steps(decoder)):
        return "metaspace"
    return None


def _replaces_metaspace(step: dict[str, Any]) -> bool:
    return bool(step["type"] == "Replace" and step["pattern"].get("String") == METASPACE)


def drops_leading_space(decoder: dict[str, Any] | None) -> bool:
    """True where decoding leaves out one space at the start of the text."""
    return any(
        (step["type"] == "Strip" and step["content"] == " " and step["start"] > 0)
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps(decoder)
    )


#: What a ByteLevel pre-tokenizer splits by when it is told to use its own expression (the one of GPT-2).
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def split_regex(pre_tokenizer: dict[str, Any] | None) -> str:
    """The first regular expression among the pre-tokenizer's steps, or an empty string."""
    for step in steps(pre_tokenizer):
        if step["type"] == "Split" and "Regex" in step["pattern"]:
            return str(step["pattern"]["Regex"])
        if step["type"] == "ByteLevel" and step.get("use_regex", True):
            return GPT2_SPLIT
    return ""
