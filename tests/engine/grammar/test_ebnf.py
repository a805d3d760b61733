"""EBNF against a recogniser that tries everything, on all short texts; notation and refusals."""

from __future__ import annotations

import itertools
import random
import re
from functools import cache
from pathlib import Path

import pytest

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import ebnf, lexemes
from bakehouse.engine.grammar.pattern import Choice, Class, Name, Node, Repeat, Sequence
from tests.engine.grammar.texts import fits, fitting, matcher

TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size)]


def recognised(rules: dict[str, Node], text: str) -> bool:
    """Whether *text* is a text of ``root``: the ends of each node from each place, until none is new."""
    ends: dict[tuple[str, int], frozenset[int]] = {}

    def of(node: Node, at: int) -> frozenset[int]:
        match node:
            case Class(chars):
                return frozenset({at + 1} if at < len(text) and any(a <= ord(text[at]) <= b for a, b in chars) else ())
            case Name(name):
                return ends.get((name, at), frozenset())
            case Choice(options):
                return frozenset().union(*(of(option, at) for option in options))
            case Sequence(parts):
                places = frozenset({at})
                for part in parts:
                    places = frozenset().union(*(of(part, place) for place in places))
                return places
            case Repeat(inner, low, high):
                reached, result = frozenset({at}), frozenset({at} if low == 0 else ())
                for count in range(1, (low + len(text) + 1 if high is None else high) + 1):
                    reached = frozenset().union(*(of(inner, place) for place in reached))
                    result |= reached if count >= low else frozenset()
                return result

    while True:
        new = {(name, at): of(node, at) for name, node in rules.items() for at in range(len(text) + 1)}
        if new == ends:
            return len(text) in ends["root", 0]
        ends = new


NAMES = ("root", "x", "y")


def random_grammar(rng: random.Random) -> str:
    return "\n".join(f"{name} ::= {expression(rng, 2)}" for name in NAMES)


def expression(rng: random.Random, depth: int) -> str:
    if depth == 0:
        return rng.choice(['"a"', '"b"', '"ab"', '"bc"', "[a-b]", "[^a]", '""', "x", "y", "root", '"a"*', "[ab]{1,2}"])
    parts = [expression(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.45:
        return "(" + " | ".join(parts) + ")" + rng.choice(["", "", "?"])
    return "(" + " ".join(parts) + ")" + rng.choice(["", "", "", "?", "{1,2}"])


@pytest.mark.parametrize("seed", range(150))
def test_random_grammars_accept_exactly_their_texts(seed: int) -> None:
    source = random_grammar(random.Random(seed))
    try:
        start = matcher("ebnf", source)
    except BadRequest as error:
        if "can never end" not in error.detail:
            raise
        return
    rules = ebnf.parse(source)
    expected = {text for text in TEXTS if recognised(rules, text)}
    assert fitting(start, TEXTS) == expected, source


@pytest.mark.parametrize(
    ("source", "yes", "no"),
    [
        ('root ::= [a-z]+ "x"', ["ax", "abxx"], ["x", "ab"]),
        ('root ::= "(" root ")" | w "x"\nw ::= [a-z]+', ["(abx)", "xx"], ["(ab)", "x"]),
        ('root ::= ("a" | "ab") "bc" | "[" root "]"', ["abc", "abbc", "[abc]"], ["ab"]),
        ('root ::= "a" root "b" |', ["", "ab", "aabb"], ["a", "abb"]),
        ('root ::= list\nlist ::= item | list "," item\nitem ::= [0-9]+ "."?', ["1,2.,3"], ["1,,2", ""]),
        (r'root ::= "\"\\\n\t\x41\u00e9\U0001F600\/"', ['"\\\n\tAé😀/'], []),
        (r"root ::= [\]\-\[^] [^\n]", ["]x", "-x", "[x", "^é"], ["ax", "]\n"]),
        ("root ::= [a-] [-a] .", ["-a.", "a--"], ["-b.", "aa\n"]),
        ('root ::= "a"{2} "b"{1,} "c"{0,2} "d"{,1}'.replace("{,1}", "?"), ["aab", "aabbccd"], ["ab", "aabccc"]),
        ('# a comment\nroot ::= a # more\n  | "b" # "c"\n\n\na::="a"\n', ["a", "b"], ["c", ""]),
        ('root ::= rule-1 | rule_2\nrule-1 ::= "1"\nrule_2 ::= "2"', ["1", "2"], []),
        ('root ::= ("a"?)* ("b"*)+', ["", "aab", "b"], ["ba"]),
        ('root ::= "a"\nunused ::= unused "b"', ["a"], ["b"]),
        ('root ::= "😀"+ "(" root? ")"', ["😀()", "😀😀(😀())"], ["()"]),
    ],
)
def test_the_notation(source: str, yes: list[str], no: list[str]) -> None:
    assert fitting(matcher("ebnf", source), [*yes, *no]) == set(yes)


JSON = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_a_grammar_of_json_keeps_its_strings_and_numbers_whole() -> None:
    """Recursive rules remain; what is regular stays a few lexemes, not one for each character."""
    texts = ['{"a": [1, -2.5e3, {"b\\u00e9": null}], "c": "x"}', "{}", '{"a": 01}', '{"a": }', "[1]"]
    assert fitting(matcher("ebnf", JSON), texts) == set(texts[:2])
    assert len(re.findall(r"^T\d+:", ebnf.to_lark(JSON), re.MULTILINE)) <= 12


def test_a_long_text_of_a_recursive_grammar_is_followed_to_its_end() -> None:
    source = 'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | [a-z]+ | "(" expr ")"'
    assert fits(matcher("ebnf", source), "(" * 50 + "1+a" + ")" * 50 + "-12345" * 200)


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ('a ::= "b"', "no rule is named 'root'"),
        ("", "no rule is named 'root'"),
        ('root ::= "a"\nroot ::= "b"', "rule 'root' is defined again, first in line 1, in line 2"),
        ('root ::= "a"\n\n  missing', "rule 'missing', used in line 3, is not defined"),
        ('root ::= "a" (= "b")', "lookahead is not supported, in line 1"),
        ('root ::= "a" (! "b")', "lookahead is not supported, in line 1"),
        ('root ::= "a', "a string is never closed, in line 1"),
        ("root ::= [a", "a '[' is never closed, in line 1"),
        ('root ::=\n("a"', "a '(' is never closed, in line 2"),
        ('root ::= "a")', "a rule 'name ::= ...' should begin at ')', in line 1"),
        ("root = a", "a rule 'name ::= ...' should begin at 'root = a', in line 1"),
        ('root ::= "a" = b', "'=' is not expected, in line 1"),
        ("root ::= [z-a]", "the ends of a range are out of order, in line 1"),
        ("root ::= []", "a class holds no character, in line 1"),
        (r'root ::= "\q"', r"\q is not an escape, in line 1"),
        (r'root ::= "\xZZ"', r"\x needs 2 hexadecimal digits, in line 1"),
        (r'root ::= "\ud800"', "an escape names no character, in line 1"),
        ('root ::= "a"{x}', "a count is {n}, {n,} or {n,m}, in line 1"),
        ('root ::= "a"{3,2}', "a count goes up, and to 10000 at most, in line 1"),
        ('root ::= "a"{10001}', "a count goes up, and to 10000 at most"),
        ('root ::= "a" root', "rule 'root' can never end: each of its alternatives needs itself"),
        ('root ::= "a" | loop\nloop ::= "b" loop | loop "c"', "rule 'loop' can never end"),
        ('root ::= (("a"{5000}){5000}){5000}', "the grammar is too large with its counts written out"),
        ("root ::= " + "(" * 200 + '"a"' + ")" * 200, "groups are nested more than 100 deep"),
    ],
)
def test_what_is_not_right_is_refused_with_rule_or_line(source: str, detail: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(detail)):
        matcher("ebnf", source)


@cache
def doubling(levels: int) -> str:
    rules = [f"r{level} ::= r{level + 1} r{level + 1}" for level in range(levels)]
    return "\n".join(["root ::= r0", *rules, f'r{levels} ::= "a"'])


def test_rules_that_double_each_other_are_not_written_out() -> None:
    assert fits(matcher("ebnf", doubling(14)), "a" * 2**14)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("length", "detail"), [(1_500, "the rules are nested too deeply"), (5_000, "a grammar may use 2000 rules")]
)
def test_a_long_chain_of_rules_is_refused_and_takes_no_time(length: int, detail: str) -> None:
    chain = "\n".join([f"r{n} ::= r{n + 1}" for n in range(length)])
    with pytest.raises(BadRequest, match=detail):
        matcher("ebnf", f'root ::= r0\n{chain}\nr{length} ::= "a"')


@pytest.mark.timeout(20)
def test_many_rules_that_may_follow_each_other_are_compiled_in_time() -> None:
    words = "\n".join(f'w{n} ::= "word{n}" [a-z]+ ("," root)?' for n in range(300))
    source = "root ::= " + " | ".join(f"w{n}" for n in range(300)) + "\n" + words
    assert fits(matcher("ebnf", source), "word7x,word299yz,word12a")


def test_the_grammar_of_the_docs_is_as_it_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "grammars.md").read_text(encoding="utf-8")
    source = page.split("```")[1]
    assert fitting(matcher("ebnf", source), ["[]", '[12,"a b",[3]]', "[1234]", "x"]) == {"[]", '[12,"a b",[3]]'}


@pytest.mark.parametrize(
    "source",
    [
        "root ::= (" + " | ".join(f'[{chr(97 + n % 26)}]"{n}"' for n in range(4000)) + ")*",
        "root ::= " + "[a-z]? " * 8000,
        "root ::= r0\n" + "".join(f'r{n} ::= "{chr(0x4E00 + n)}" | r{(n + 1) % 900}\n' for n in range(900)),
    ],
    ids=["choice", "optional", "circle"],
)
def test_what_would_take_too_long_is_refused(source: str) -> None:
    """By a count, not by a clock: the first of them took a gibibyte."""
    with pytest.raises(BadRequest, match="too many of its parts may follow each other"):
        ebnf.to_lark(source)


def test_where_much_may_be_read_in_two_ways_all_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexemes, "MAX_LOOKS", 100)
    source = 'root ::= ("a" ("b" ("a")* )* )* "a"?'
    split = matcher("ebnf", source)
    assert all(fits(split, text) for text in ("", "a", "aa", "abba", "abaaba"))
    assert not fits(split, "b")
    assert ebnf.to_lark("root ::= " + '("a"' * 90 + ")*" * 90)


def test_a_row_of_signs_is_one_comment() -> None:
    """Each sign could begin a comment: their readings, 2 to the power of 200, are not tried one after the other."""
    assert ebnf.parse("root ::= a " + "#" * 200 + '\n"x"\na ::= "y"') == ebnf.parse('root ::= a "x"\na ::= "y"')


def test_lines_are_counted_for_errors_only() -> None:
    with pytest.raises(BadRequest, match="rule 'b', used in line 30002, is not defined"):
        ebnf.parse('a ::= "y"\nroot ::=\n' + "a\n" * 29_999 + "b")
    with pytest.raises(BadRequest, match="rule 'a' is defined again, first in line 2, in line 4"):
        ebnf.parse('root ::= a\na ::= "x"\n\na ::= "y"')


def test_large_classes_take_more_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second character each, so that telling two of them apart goes through both."""
    letters = ["".join(chr(0x4E00 + 4 * n + half) for n in range(400)) for half in (0, 2)]
    rules = ebnf.parse(f'root ::= (([{letters[0]}] "a") root | ([{letters[1]}] "b") root)?')
    assert not lexemes.to_split({"": Name("root"), **rules})
    monkeypatch.setattr(lexemes, "MAX_LOOKS", 100)
    assert lexemes.to_split({"": Name("root"), **rules})
