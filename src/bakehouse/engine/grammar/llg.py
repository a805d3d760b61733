"""Grammars by llguidance: one compiler per tokenizer, one matcher per sequence.

llguidance knows one token that ends a text; ours is an id of its own behind the vocabulary, so that the model's stop
ids stay what the contract says: special, and allowed exactly where the grammar could end. A mask is computed with the
interpreter's lock released.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from bakehouse.engine.errors import BadRequest, LimitExceeded
from bakehouse.engine.grammar import ebnf, regex, schema
from bakehouse.engine.grammar.base import Compiler, Matcher
from bakehouse.engine.grammar.room import Room
from bakehouse.engine.grammar.tools import tool_grammar
from bakehouse.engine.params import GrammarSpec
from bakehouse.engine.tokenizer.base import Tokenizer

T = TypeVar("T")

#: Compiled grammars that are kept.
CACHE_SIZE = 64

#: States that a lexer may have. Nearly all grammars need less than the first; one that grows beyond it gets a lexer of
#: the next. Beyond the last, a grammar is refused where it is compiled, or its request fails where it is stepped.
STATES = (1_500, 10_000, 60_000)

#: What a lexer takes at most, in bytes: for each of its states, for each character of its grammar, and in any case.
PER_STATE, PER_CHARACTER, EACH = 1_600, 200, 1 << 18

#: Bytes that the grammars of one model may take.
ROOM = 2 << 30


def _limits(states: int) -> LLParserLimits:
    """The others are llguidance's own; the size bounds compiling to about a second, and the row is wide enough for an
    object of a thousand optional properties."""
    return LLParserLimits(
        max_grammar_size=200_000, max_items_in_row=10_000, max_lexer_states=states, verbose_errors=False
    )


class LlgCompiler(Compiler):
    """*stop_tokens*: the ids that may end a generation; without any, a grammar's end is only `Matcher.finished`."""

    def __init__(self, tokenizer: Tokenizer, stop_tokens: Iterable[int] = (), room: int = ROOM) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(sorted(set(stop_tokens)))
        self._vocabulary = LLTokenizer(_Vocabulary(tokenizer, self._stop))  # type: ignore[arg-type]
        self._cache: OrderedDict[tuple[str, str], _Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self.room = Room(room)

    def matcher(self, spec: GrammarSpec, owner: str = "") -> LlgMatcher:
        return self._matcher((spec.kind, spec.source), lambda: _grammar(spec), owner)

    def tool_matcher(self, family: str, tools: Sequence[str], owner: str = "") -> LlgMatcher:
        key = ("tools " + family, json.dumps(list(tools)))
        return self._matcher(key, lambda: tool_grammar(family, tools, self._tokenizer), owner)

    def _matcher(self, key: tuple[str, str], grammar: Callable[[], str], owner: str) -> LlgMatcher:
        with self._lock:
            compiled = self._cache.get(key)
            if compiled is not None:
                self._cache.move_to_end(key)
        if compiled is None:
            text = grammar()
            compiled = _Compiled(lambda states, payer: self._compile(text, states, payer), owner)
            self._keep(key, compiled)
        return LlgMatcher(compiled, owner, self._tokenizer.vocab_size, self._stop)

    def _compile(self, grammar: str, states: int, owner: str) -> _Lexer:
        """With its first mask, so that what is too complex from the start is refused here."""
        lexer = _Lexer(states)
        self.room.take(lexer, owner, EACH + PER_STATE * states + PER_CHARACTER * len(grammar), self._forget)
        lexer.start = start = LLMatcher(self._vocabulary, grammar, log_level=0, limits=_limits(states))
        if not start.is_error():
            start.compute_bitmask()
        if start.is_error():
            if start.get_error().startswith(_TOO_MANY) and states < STATES[-1]:
                raise _Broken
            raise BadRequest.at("grammar", _told(start))
        return lexer

    def _forget(self) -> bool:
        """Let go of the grammar that was used least recently; False where none is kept."""
        with self._lock:
            return bool(self._cache) and self._cache.popitem(last=False) is not None

    def _keep(self, key: tuple[str, str], compiled: _Compiled) -> None:
        with self._lock:
            self._cache[key] = compiled
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)


def _grammar(spec: GrammarSpec) -> str:
    """*spec* in one of the forms that llguidance reads."""
    if spec.kind == "json":
        return LLMatcher.grammar_from_json_schema(schema.any_json())
    if spec.kind == "json_schema":
        prepared = schema.prepare(spec.source)
        try:
            return LLMatcher.grammar_from_json_schema(prepared)
        except ValueError as error:  # a number that llguidance does not know
            raise BadRequest.at("grammar.source", str(error)[:200]) from None
    if spec.kind == "regex":
        return LLMatcher.grammar_from_regex(regex.to_rust(spec.source))
    return ebnf.to_lark(spec.source)


#: How llguidance's errors begin that a larger lexer does not have.
_TOO_MANY = "lexer error: too many"


def _told(matcher: LLMatcher) -> str:
    """llguidance's own words, without its notes on where in its code it was."""
    return matcher.get_error().split("\n<")[0].strip()[:2000]


class _Broken(Exception):
    """llguidance gave up, for a reason that another lexer may not have."""


class _Lexer:
    """What the copies of *start* share: its room is set aside as long as anybody has it."""

    start: LLMatcher

    def __init__(self, states: int) -> None:
        self.states = states


class _Compiled:
    """One grammar. Copies of a matcher share llguidance's lexer: what one of them explored helps the others, and where
    it grew over its limits it is broken for all. So a broken one is left behind for a larger one, which they share
    again; of the largest, each copy gets one of its own."""

    def __init__(self, make: Callable[[int, str], _Lexer], owner: str) -> None:
        self._make = make
        self._lock = threading.Lock()
        #: States that are known to be too few.
        self._outgrown = 0
        self._shared: _Lexer | None = self._larger(owner)

    def start(self, owner: str) -> _Lexer:
        """The one that is shared; *owner* pays where it has to be made."""
        with self._lock:
            if self._shared is None:
                self._shared = self._larger(owner)
            return self._shared

    def after(self, broken: _Lexer, owner: str) -> _Lexer:
        """What to go on with where *broken* is."""
        with self._lock:
            if self._shared is broken:
                self._shared = None
            if broken.states < STATES[-1]:
                self._shared = self._shared or self._larger(owner, broken.states)
                return self._shared
        return self._larger(owner)

    def _larger(self, owner: str, than: int = 0) -> _Lexer:
        """Where there is no room for it, those who start get a small one again."""
        for states in (states for states in STATES if states > max(than, self._outgrown)):
            try:
                lexer = self._make(states, owner)
            except _Broken:  # too small for the first mask; the largest raises what it says
                self._outgrown = states
            else:
                self._outgrown = max(self._outgrown, than)
                return lexer
        raise AssertionError("unreachable")


class LlgMatcher(Matcher):
    def __init__(self, compiled: _Compiled, owner: str, vocab_size: int, stop: tuple[int, ...]) -> None:
        self._compiled = compiled
        self._owner = owner
        self._begin(compiled.start(owner))
        self._alone = False
        self._taken: list[int] = []
        self._bytes = -(-vocab_size // 32) * 4
        self._vocab_size = vocab_size
        self._stop = stop
        self._terminated = False

    def mask(self) -> bytes:
        return self._go_on(self._mask)

    def masks(self, drafts: Sequence[int]) -> list[bytes]:
        return self._go_on(lambda: self._masks(drafts))

    def accept(self, tokens: Sequence[int]) -> None:
        for index, token in enumerate(tokens):
            refusal = self._go_on(lambda token=token: self._accept(token))  # type: ignore[misc]
            if refusal:
                raise BadRequest.at(f"tokens[{index}]", refusal)

    @property
    def terminated(self) -> bool:
        return self._terminated

    @property
    def finished(self) -> bool:
        return not self._terminated and self._inner.is_stopped() and self._inner.is_accepting()

    def reset(self) -> None:
        if self._inner.is_error() or not self._inner.reset():
            self._begin(self._compiled.start(self._owner))
            self._alone = False
        self._taken = []
        self._terminated = False

    def copy(self) -> LlgMatcher:
        other = copy(self)
        other._inner = self._inner.deep_copy()
        other._taken = self._taken.copy()
        return other

    def _mask(self) -> bytes:
        if self._terminated:
            return bytes(self._bytes)
        if self._inner.is_stopped() and not self._inner.is_error():
            bits = bytearray(self._bytes)
        else:
            bits = bytearray(self._computed()[: self._bytes])
            if self._vocab_size % 32:
                _clear(bits, self._vocab_size)
        if self._inner.is_accepting():
            for token in self._stop:
                bits[token >> 3] |= 1 << (token & 7)
        return bytes(bits)

    def _masks(self, drafts: Sequence[int]) -> list[bytes]:
        found = [self._mask()]
        stepped = 0
        for token in drafts:
            if not _bit(found[-1], token):
                break
            if token in self._stop:
                found.append(bytes(self._bytes))
                break
            if self._inner.try_consume_tokens([token]) != 1:
                raise _Broken
            stepped += 1
            found.append(self._mask())
        if stepped and not self._inner.rollback(stepped):
            raise _Broken
        return found

    def _accept(self, token: int) -> str:
        """Why *token* is refused, or nothing."""
        if self._terminated:
            return "the grammar has ended; reset the matcher to use it again"
        if token in self._stop:
            self._terminated = self._inner.is_accepting()
            fits, refusal = self._terminated, f"stop id {token} came where the grammar cannot end"
        else:
            fits = 0 <= token < self._vocab_size and self._inner.try_consume_tokens([token]) == 1
            refusal = f"id {token} does not fit the grammar here"
            self._taken += [token] if fits else []
        if not fits:
            self._computed()
        return "" if fits else refusal

    def _computed(self) -> bytes:
        """llguidance's mask. A lexer that is broken tells so only here; before, it takes nothing any more."""
        bits = self._inner.compute_bitmask()
        if self._inner.is_error():
            raise _Broken
        return bits

    def _go_on(self, compute: Callable[[], T]) -> T:
        """*compute*, and where llguidance gave up, again with other lexers, the last one our own: one is compiled
        within a step of the model, so that it is not done again and again."""
        while True:
            try:
                return compute()
            except _Broken:
                if self._alone:
                    raise LimitExceeded(f"the grammar is too complex to follow here: {_told(self._inner)}") from None
            self._alone = self._lexer.states == STATES[-1]
            self._begin(self._compiled.after(self._lexer, self._owner))
            self._inner.try_consume_tokens(self._taken)

    def _begin(self, lexer: _Lexer) -> None:
        self._lexer, self._inner = lexer, lexer.start.deep_copy()


def _clear(bits: bytearray, token: int) -> None:
    bits[token >> 3] &= ~(1 << (token & 7)) & 0xFF


def _bit(bits: bytes, token: int) -> bool:
    return 0 <= token < len(bits) * 8 and bool(bits[token >> 3] >> (token & 7) & 1)


class _Vocabulary:
    """A tokenizer as llguidance wants to see one. The last id, behind the vocabulary, ends a text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop: tuple[int, ...]) -> None:
        size = tokenizer.vocab_size
        for token in stop:
            if not 0 <= token < size:
                raise BadRequest.at("stop_tokens", f"id {token} is none of the model's {size}")
        self.eos_token_id = size
        self.tokens = [b""] * (size + 1)
        for token, text in zip(*tokenizer.vocabulary, strict=True):
            self.tokens[token] = text
        self.special_token_ids = [size, *stop, *(t for t in tokenizer.special_ids if t < size)]
        self._encode = tokenizer.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
