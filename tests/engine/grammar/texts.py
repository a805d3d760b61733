"""What tests say to a matcher: texts in bytes."""

from __future__ import annotations

from collections.abc import Iterable

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.grammar.llg import LlgCompiler, LlgMatcher
from bakehouse.engine.params import GrammarKind, GrammarSpec
from tests.engine.grammar.vocabularies import BYTE_STOP, byte_tokenizer

COMPILER = LlgCompiler(byte_tokenizer(), BYTE_STOP)


def matcher(kind: GrammarKind, source: str = "") -> LlgMatcher:
    return COMPILER.matcher(GrammarSpec(kind, source))


def allows(mask: bytes, token: int) -> bool:
    return bool(mask[token // 8] >> (token % 8) & 1)


def fits(start: Matcher, text: str) -> bool:
    """Whether *text* is a whole text of the grammar that *start* stands at the start of."""
    walker = start.copy()
    try:
        walker.accept(byte_tokenizer().encode(text))
    except BadRequest:
        return False
    return allows(walker.mask(), BYTE_STOP[0])


def fitting(start: Matcher, texts: Iterable[str]) -> set[str]:
    return {text for text in texts if fits(start, text)}
