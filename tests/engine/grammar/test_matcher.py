"""The contract of matchers and compilers, on bytes and on a vocabulary whose pieces cross the grammar's lexemes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, LimitExceeded
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.grammar.llg import CACHE_SIZE, LlgCompiler, LlgMatcher
from bakehouse.engine.params import GrammarSpec
from tests.engine.grammar.texts import allows
from tests.engine.grammar.vocabularies import BPE_STOP, BYTE_STOP, bpe_tokenizer, byte_tokenizer

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","xy"]}},"required":["a"]}'
SPECS = (
    GrammarSpec("json"),
    GrammarSpec("json_schema", SCHEMA),
    GrammarSpec("regex", r"(?:ab|a)*c?"),
    GrammarSpec("ebnf", 'root ::= "(" root ")" | [0-9]+'),
)
BPE = LlgCompiler(bpe_tokenizer(), BPE_STOP)
BYTES = LlgCompiler(byte_tokenizer(), BYTE_STOP)


def ids(mask: bytes) -> list[int]:
    return [token for token in range(len(mask) * 8) if allows(mask, token)]


def walk(matcher: Matcher, choices: Sequence[int]) -> list[int]:
    """Accepts one allowed id per choice, until nothing is allowed; the ids."""
    taken: list[int] = []
    for choice in choices:
        allowed = ids(matcher.mask())
        if not allowed:
            break
        taken.append(allowed[choice % len(allowed)])
        matcher.accept([taken[-1]])
    return taken


compilers = st.sampled_from([BYTES, BPE])
specs = st.sampled_from(SPECS)
choices = st.lists(st.integers(0, 10_000), max_size=12)


@settings(max_examples=60, deadline=None)
@given(compilers, specs, choices)
def test_the_mask_is_what_accept_accepts(compiler: LlgCompiler, spec: GrammarSpec, taken: list[int]) -> None:
    matcher = compiler.matcher(spec)
    walk(matcher, taken)
    mask = matcher.mask()
    for token in range(0, len(mask) * 8, 1 + len(mask) // 20):
        trial = matcher.copy()
        if allows(mask, token):
            trial.accept([token])
        else:
            with pytest.raises(BadRequest):
                trial.accept([token])


@settings(max_examples=80, deadline=None)
@given(compilers, specs, choices, choices, st.integers(0, 600))
def test_masks_of_drafts_are_those_of_steps(
    compiler: LlgCompiler, spec: GrammarSpec, before: list[int], after: list[int], odd: int
) -> None:
    matcher = compiler.matcher(spec)
    walk(matcher, before)
    start = matcher.mask()
    drafts = [*walk(matcher.copy(), after), odd]
    stepped, expected = matcher.copy(), [start]
    for token in drafts:
        if not allows(expected[-1], token % (len(start) * 8)) or token >= len(start) * 8:
            break
        stepped.accept([token])
        expected.append(stepped.mask())
    assert matcher.masks(drafts) == expected
    assert matcher.mask() == start


@settings(max_examples=40, deadline=None)
@given(compilers, specs, choices, choices)
def test_copies_go_their_own_way_and_reset_begins_again(
    compiler: LlgCompiler, spec: GrammarSpec, first: list[int], second: list[int]
) -> None:
    matcher = compiler.matcher(spec)
    start = matcher.mask()
    walk(matcher, first)
    here, copy = matcher.mask(), matcher.copy()
    walk(copy, second)
    assert matcher.mask() == here
    copy.reset()
    assert copy.mask() == start
    assert not copy.terminated


@pytest.mark.parametrize("compiler", [BYTES, BPE])
@pytest.mark.parametrize("spec", SPECS)
def test_masks_have_the_size_and_packing_of_brle(compiler: LlgCompiler, spec: GrammarSpec) -> None:
    size = bpe_tokenizer().vocab_size if compiler is BPE else byte_tokenizer().vocab_size
    mask = compiler.matcher(spec).mask()
    assert len(mask) == len(brle.to_bits((0, size), size))
    assert brle.to_bits(brle.from_bits(mask, size), size) == mask


def test_no_special_id_and_no_id_without_text_is_ever_allowed() -> None:
    tokenizer = bpe_tokenizer()
    mask = BPE.matcher(GrammarSpec("regex", "[^]+".replace("[^]", r"[\s\S]"))).mask()
    allowed = set(ids(mask))
    assert tokenizer.special_ids and not allowed & tokenizer.special_ids
    assert not [token for token in allowed if not tokenizer.token_bytes(token)]


def test_stop_ids_are_allowed_where_it_could_end_and_terminate() -> None:
    matcher = BYTES.matcher(GrammarSpec("regex", "ab?"))
    assert not any(allows(matcher.mask(), stop) for stop in BYTE_STOP)
    matcher.accept(b"a")
    assert all(allows(matcher.mask(), stop) for stop in BYTE_STOP)
    assert allows(matcher.mask(), ord("b")) and not matcher.finished
    matcher.accept(b"b")
    assert set(ids(matcher.mask())) == set(BYTE_STOP) and matcher.finished and not matcher.terminated
    matcher.accept([BYTE_STOP[1]])
    assert matcher.terminated and not matcher.finished and not ids(matcher.mask())
    with pytest.raises(BadRequest, match=r"tokens\[0\]: the grammar has ended; reset"):
        matcher.accept(b"a")


def test_the_tokens_before_one_that_does_not_fit_stay_accepted() -> None:
    matcher = BYTES.matcher(GrammarSpec("regex", "abcd"))
    with pytest.raises(BadRequest, match=r"tokens\[2\]: id 120 does not fit"):
        matcher.accept(b"abx")
    matcher.accept(b"cd")
    assert matcher.finished


def test_a_stop_id_that_comes_too_early_is_refused_and_changes_nothing() -> None:
    matcher = BYTES.matcher(GrammarSpec("regex", "ab"))
    with pytest.raises(BadRequest, match="stop id 257 came where the grammar cannot end"):
        matcher.accept([BYTE_STOP[0]])
    matcher.accept(b"ab")
    assert matcher.finished


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_out_of_the_vocabulary_does_not_fit(token: int) -> None:
    matcher = BYTES.matcher(GrammarSpec("json"))
    with pytest.raises(BadRequest, match="does not fit"):
        matcher.accept([token])
    assert len(matcher.masks([token])) == 1


def test_a_stop_id_with_text_of_its_own_is_no_text_of_the_grammar() -> None:
    compiler = LlgCompiler(byte_tokenizer(), [ord("z")])
    matcher = compiler.matcher(GrammarSpec("regex", "[a-z]{2}"))
    assert not allows(matcher.mask(), ord("z"))
    matcher.accept(b"ab")
    assert ids(matcher.mask()) == [ord("z")]


def test_without_stop_ids_an_end_is_still_told() -> None:
    matcher = LlgCompiler(byte_tokenizer()).matcher(GrammarSpec("regex", "a"))
    matcher.accept(b"a")
    assert matcher.finished and not ids(matcher.mask())


def test_a_stop_id_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(BadRequest, match="id 100000 is none of the model's"):
        LlgCompiler(byte_tokenizer(), [100_000])


def test_equal_texts_of_different_kinds_are_different_grammars() -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP)
    source = 'root ::= "a"'
    assert ids(compiler.matcher(GrammarSpec("regex", source)).mask()) == [ord("r")]
    assert ids(compiler.matcher(GrammarSpec("ebnf", source)).mask()) == [ord("a")]


def test_the_cache_keeps_the_latest_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP)
    compiled = []
    inner = compiler._compile

    def counted(grammar: str, states: int, owner: str) -> object:
        compiled.append(grammar)
        return inner(grammar, states, owner)

    monkeypatch.setattr(compiler, "_compile", counted)
    first = GrammarSpec("regex", "first")
    for number in range(CACHE_SIZE + 5):
        compiler.matcher(first)
        compiler.matcher(GrammarSpec("regex", f"other {number}"))
    assert len(compiled) == CACHE_SIZE + 6
    compiler.matcher(GrammarSpec("regex", "other 0"))
    assert len(compiled) == CACHE_SIZE + 7


def test_matchers_of_one_grammar_run_in_threads() -> None:
    """Each thread walks its own copy; what they see is what one walk alone sees."""
    spec = GrammarSpec("json_schema", SCHEMA)
    alone = BPE.matcher(spec)
    expected = (walk(alone, range(7, 27)), alone.mask())
    found: list[object] = []

    def work() -> None:
        for _ in range(20):
            matcher = BPE.matcher(spec)
            found.append((walk(matcher, range(7, 27)), matcher.mask()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 80


#: Its lexer makes new expressions with each character, until llguidance gives up after some eighty of them.
GROWS = GrammarSpec("regex", "(?:[a-z]{0,1000}[0-9a-z]{0,1000}){0,30}")


def until_refused(matcher: Matcher) -> int:
    for taken in range(300):
        try:
            matcher.mask()
            matcher.accept(bpe_tokenizer().encode("a"))
        except LimitExceeded:
            return taken
    raise AssertionError("it was never refused")


def test_one_sequence_that_breaks_the_lexer_breaks_no_other_and_may_begin_again() -> None:
    compiler = LlgCompiler(bpe_tokenizer(), BPE_STOP)
    tokens = bpe_tokenizer().encode("a1b2")
    greedy, before = compiler.matcher(GROWS), compiler.matcher(GROWS)
    before.accept(tokens)
    expected = compiler.matcher(GROWS).mask()
    twin = greedy.copy()
    assert until_refused(greedy) > 10
    after = compiler.matcher(GROWS)
    assert after.mask() == expected
    after.accept(tokens)
    twin.accept(tokens)
    assert before.mask() == after.mask() == twin.mask()
    before.accept(tokens)
    greedy.reset()
    assert greedy.mask() == expected


def test_drafts_that_break_the_lexer_are_refused_and_the_matcher_may_begin_again() -> None:
    matcher = LlgCompiler(bpe_tokenizer(), BPE_STOP).matcher(GROWS)
    token = bpe_tokenizer().encode("a")
    with pytest.raises(LimitExceeded, match="the grammar is too complex to follow here: "):
        matcher.masks(token * 300)
    matcher.reset()
    assert len(matcher.masks(token * 3)) == 4


#: A lexer of it gets a state for each choice of the last eighteen letters.
REMEMBERS = GrammarSpec("regex", "(a|b)*a(a|b){18}")


def wander(matcher: Matcher, until: Callable[[], bool]) -> None:
    letters = Random(1)
    for _ in range(30_000):
        matcher.accept([letters.choice(b"ab")])
        if until():
            return
    raise AssertionError("it went nowhere")


def small(number: int) -> GrammarSpec:
    return GrammarSpec("regex", f"small {number}")


def fill(compiler: LlgCompiler, owner: str, held: list[LlgMatcher]) -> None:
    for number in range(100):
        held.append(compiler.matcher(small(number), owner))


def test_an_owner_leaves_room_for_the_grammars_of_others() -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP, room=40 << 20)
    held: list[LlgMatcher] = []
    with pytest.raises(LimitExceeded, match=r"^grammars: "):
        fill(compiler, "greedy", held)
    assert len(held) > 5
    honest = compiler.matcher(GrammarSpec("json"), "honest")
    assert honest.mask() == BYTES.matcher(GrammarSpec("json")).mask()
    assert held[0].mask() == BYTES.matcher(small(0)).mask()
    held.clear()
    assert compiler.matcher(small(1000), "greedy").mask()


def test_the_cache_makes_room_for_what_is_used() -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP, room=40 << 20)
    for number in range(30):
        compiler.matcher(small(number), "one after the other")
    while compiler._forget():
        pass
    assert compiler.room.used == 0


def test_a_grammar_grows_as_far_as_there_is_room() -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP, room=12 << 20)
    matcher = compiler.matcher(REMEMBERS)
    with pytest.raises(LimitExceeded, match=r"^grammars: "):
        wander(matcher, lambda: False)
    matcher.reset()
    assert ids(matcher.mask()) == [ord("a"), ord("b")]


def test_copies_outgrow_a_lexer_together() -> None:
    compiler = LlgCompiler(byte_tokenizer(), BYTE_STOP)
    first, second = compiler.matcher(REMEMBERS), compiler.matcher(REMEMBERS)
    before = first._lexer
    wander(first, lambda: first._lexer is not before)
    assert second._lexer is before
    wander(second, lambda: second._lexer is not before)
    assert second._lexer is first._lexer
    assert compiler.matcher(REMEMBERS)._lexer is first._lexer
