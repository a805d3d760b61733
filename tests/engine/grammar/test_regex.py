"""Regular expressions against Python's, and what is refused."""

from __future__ import annotations

import random
import re

import pytest

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import regex
from tests.engine.grammar.schemas import expression
from tests.engine.grammar.texts import fits, fitting, matcher

ALPHABET = "abc.09fAé αω/_- "


@pytest.mark.parametrize("seed", range(40))
def test_expressions_mean_what_they_mean_to_python(seed: int) -> None:
    """Every short prefix-closed guess and some near misses, of random expressions."""
    rng = random.Random(seed)
    source = expression(rng, 2)
    start, checker = matcher("regex", source), re.compile(source, re.ASCII)
    for _ in range(150):
        text = "".join(rng.choices(ALPHABET, k=rng.randrange(6)))
        assert fits(start, text) == (checker.fullmatch(text) is not None), (source, text)


@pytest.mark.parametrize(
    ("source", "yes", "no"),
    [
        ("^abc$", ["abc"], ["ab", "abcd", ""]),
        ("^a|b$", ["a", "b"], ["ab"]),
        ("(a(b)?|(?:c)){2}", ["ac", "aba", "cc"], ["a", "abc!"]),
        ("(?<name>a)", ["a"], [""]),
        ("a{2}b{1,}c{0,2}", ["aab", "aabbcc"], ["ab", "aabccc"]),
        ("a*?b+?c??", ["b", "aabc"], ["", "ac"]),
        ("a{,2}", ["a{,2}"], ["aa"]),
        ("x{y}", ["x{y}"], ["x"]),
        ("]}", ["]}"], []),
        (r"\d\D", ["1a", "1٣"], ["11", "٣a"]),
        (r"\w\W", ["_é", "a "], ["éa"]),
        (r"\s\S", [" a", "\tx", "\v é"[0] + "é"], ["a ", "\u00a0a", "a\u00a0"]),
        (r"[^\s]", ["a"], [" ", "\u2003", "\ufeff"]),
        (r"[^\S]", [" ", "\n"], ["a"]),
        (".", ["a", "é", "😀"], ["\n", "\r", "\u2028", ""]),
        (r"[\s\S]", ["\n", "a"], [""]),
        (r"[^a-c]", ["d", "\n", "漢"], ["a", "b"]),
        (r"[a\-z]", ["a", "-", "z"], ["b"]),
        (r"[-a]", ["-", "a"], ["b"]),
        (r"[a-]", ["-", "a"], ["b"]),
        (r"[\]\\^]", ["]", "\\", "^"], ["a"]),
        (r"\u0041\x42\u{1F600}", ["AB😀"], ["AB"]),
        (r"\ud83d\ude00", ["😀"], []),
        (r"\t\n\r\f\v\0", ["\t\n\r\f\v\0"], []),
        (r"\cA\.\/\-\$\^", ["\x01./-$^"], []),
        ("", [""], ["a"]),
        ("(?:)", [""], ["a"]),
        ("a||b", ["a", "", "b"], ["ab"]),
    ],
)
def test_the_dialect(source: str, yes: list[str], no: list[str]) -> None:
    assert fitting(matcher("regex", source), [*yes, *no]) == set(yes)


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("a(?=b)", "lookaround is not supported, at position 1"),
        ("a(?!b)", "lookaround is not supported, at position 1"),
        ("(?<=a)b", "lookaround is not supported, at position 0"),
        ("(?<!a)b", "lookaround is not supported, at position 0"),
        (r"(a)\1", "backreferences are not supported, at position 3"),
        (r"(?<x>a)\k<x>", "backreferences are not supported, at position 7"),
        (r"\p{L}", "Unicode properties are not supported, at position 0"),
        (r"[\P{L}]", "Unicode properties are not supported, at position 1"),
        (r"a\b", "word boundaries are not supported, at position 1"),
        (r"\Ba", "word boundaries are not supported, at position 0"),
        ("a**", "a count upon a count is not supported; put the inner one in a group, at position 2"),
        ("a{2}{3}", "a count upon a count"),
        ("a*+", "a count upon a count"),
        ("a???", "a count upon a count"),
        ("*a", "there is nothing to repeat, at position 0"),
        ("a|+", "there is nothing to repeat, at position 2"),
        ("a{3,2}", "the counts are out of order, at position 1"),
        ("a{99999}", "a count is at most 10000, at position 1"),
        ("(a", "a '(' is never closed, at position 0"),
        ("a)", "a ')' closes no group, at position 1"),
        ("[a", "a '[' is never closed, at position 0"),
        ("[]", "this class holds no character, at position 0"),
        (r"[^\s\S]", "this class holds no character, at position 0"),
        ("[b-a]", "this range runs between no two characters in order, at position 1"),
        (r"[\d-z]", "this range runs between no two characters in order"),
        (r"\q", r"\q is not an escape, at position 0"),
        ("a\\", "a backslash at the end escapes nothing, at position 1"),
        (r"\u12", "this escape names no character, at position 0"),
        (r"\ud800x", "this escape names no character, at position 0"),
        (r"[\ud800]", "this escape names no character, at position 1"),
        ("a\ud800", "half of a surrogate pair stands at position 1"),
        ("a" * (1 << 20) + "a", "it may have 1048576 characters"),
        ("(?i)a", "this kind of group is not supported, at position 0"),
        ("(?<x", "a '(' is never closed, at position 0"),
        ("(" * 200 + ")" * 200, "groups are nested more than 100 deep"),
        ("(?:(?:a{1000}){1000}){1000}", "the expression is too large with its counts written out"),
    ],
)
def test_what_is_not_regular_or_not_right_is_refused_with_its_place(source: str, detail: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(detail)) as refused:
        matcher("regex", source)
    assert refused.value.field == "grammar.source"


def test_so_many_parts_may_be_left_out() -> None:
    """The time to compile them is the square of their number."""
    for source in ("(a|b)*" * 10_001, "x" + "(?:[a-z]?y?)" * 5001):
        with pytest.raises(BadRequest, match="more than 10000 of its parts may be left out"):
            regex.to_rust(source)
    assert regex.to_rust("(?:(?:a?){100}b?){100}")
