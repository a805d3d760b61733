"""EBNF in the notation of GBNF: ``name ::= expression``, read into `pattern` nodes and handed to `lark`.

String literals and character classes with escapes (``\\n \\t \\r \\xXX \\uXXXX \\UXXXXXXXX`` and of signs), names,
``|``, groups, ``* + ? {n} {n,} {n,m}``, ``.`` for any character but a line's end, ``#`` comments. A rule goes on until
the next ``name ::=``. The rule named ``root`` is where a text begins. Lookahead ``(= ...)`` is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import charset, lark, pattern
from bakehouse.engine.grammar.charset import Chars
from bakehouse.engine.grammar.pattern import EMPTY, Class, Name, Node, Repeat

MAX_DEPTH = 100
MAX_COUNT = 10_000
ROOT = "root"

# Possessive: what failed once is not tried in the exponentially many ways to read a row of signs as comments.
_SPACE = re.compile(r"(?:\s|#[^\n]*)*+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DEFINES = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\s|#[^\n]*)*+::=")
_COUNT = re.compile(r"\{\s*([0-9]{1,6})\s*(,?)\s*([0-9]{0,6})\s*\}")
_HEX = {"x": 2, "u": 4, "U": 8}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "b": "\b", "0": "\0"}


def to_lark(source: str, field: str = "grammar.source") -> str:
    """*source* as a grammar for llguidance. Raises `BadRequest` with the rule and line of what is refused."""
    try:
        return lark.written(parse(source, field), ROOT, field)
    except RecursionError:
        raise BadRequest.at(field, "the rules are nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Rule:
    """``at``: where it begins in the source."""

    node: Node
    at: int


def parse(source: str, field: str = "grammar.source") -> dict[str, Node]:
    """The rules of *source*, by name, in their order; each name that occurs is one of them, ``root`` too."""
    pattern.check_text(source, field)
    parser = _Parser(source, field)
    rules = parser.rules()
    for name, at in parser.used.items():
        if name not in rules:
            raise BadRequest.at(field, f"rule {name!r}, used in line {parser.line(at)}, is not defined")
    if ROOT not in rules:
        raise BadRequest.at(field, f"no rule is named {ROOT!r}; a text begins with it")
    return {name: rule.node for name, rule in rules.items()}


class _Parser:
    def __init__(self, source: str, field: str) -> None:
        self.source = source
        self.field = field
        self.at = 0
        #: Where a name stands first. Lines are counted for errors only: each count reads the source up to there.
        self.used: dict[str, int] = {}
        self.skip()

    def line(self, at: int | None = None) -> int:
        return self.source.count("\n", 0, self.at if at is None else at) + 1

    def refuse(self, detail: str, at: int | None = None) -> NoReturn:
        raise BadRequest.at(self.field, f"{detail}, in line {self.line(at)} of the grammar")

    def skip(self) -> None:
        found = _SPACE.match(self.source, self.at)
        self.at = found.end() if found else self.at

    def peek(self, length: int = 1) -> str:
        return self.source[self.at : self.at + length]

    def take(self, length: int = 1) -> None:
        self.at += length
        self.skip()

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        while self.at < len(self.source):
            start = self.at
            name = _NAME.match(self.source, self.at)
            if name is None or not _DEFINES.match(self.source, self.at):
                self.refuse(f"a rule 'name ::= ...' should begin at {self.peek(12)!r}")
            if name[0] in rules:
                self.refuse(f"rule {name[0]!r} is defined again, first in line {self.line(rules[name[0]].at)}")
            self.take(len(name[0]))
            self.take(3)
            rules[name[0]] = Rule(self.choice(0), start)
        return rules

    def choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self.refuse(f"groups are nested more than {MAX_DEPTH} deep")
        options = [self.sequence(depth)]
        while self.peek() == "|":
            self.take()
            options.append(self.sequence(depth))
        return pattern.choice(options)

    def sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")") and not _DEFINES.match(self.source, self.at):
            parts.append(self.counted(self.atom(depth)))
        return pattern.sequence(parts)

    def counted(self, node: Node) -> Node:
        """*node* with the counts after it; as in GBNF several may follow each other."""
        while True:
            char = self.peek()
            if char in ("*", "+", "?"):
                node = Repeat(node, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[char])
                self.take()
            elif char == "{":
                node = self.braces(node)
            else:
                return node

    def braces(self, node: Node) -> Node:
        found = _COUNT.match(self.source, self.at)
        if found is None:
            self.refuse("a count is {n}, {n,} or {n,m}")
        low = int(found[1])
        high = int(found[3]) if found[3] else (None if found[2] else low)
        if max(low, high or 0) > MAX_COUNT or (high is not None and high < low):
            self.refuse(f"a count goes up, and to {MAX_COUNT} at most")
        self.take(len(found[0]))
        return Repeat(node, low, high)

    def atom(self, depth: int) -> Node:
        char = self.peek()
        if char == '"':
            return self.literal()
        if char == "[":
            return self.char_class()
        if char == "(":
            return self.group(depth)
        if char == ".":
            self.take()
            return Class(charset.complement(charset.letters("\n\r")))
        name = _NAME.match(self.source, self.at)
        if name is None:
            self.refuse(f"{char!r} is not expected")
        self.used.setdefault(name[0], self.at)
        self.take(len(name[0]))
        return Name(name[0])

    def group(self, depth: int) -> Node:
        start = self.at
        if self.peek(2) in ("(=", "(!"):
            self.refuse("lookahead is not supported")
        self.take()
        node = self.choice(depth + 1)
        if self.peek() != ")":
            self.refuse("a '(' is never closed", start)
        self.take()
        return node

    def literal(self) -> Node:
        start = self.at
        self.at += 1
        chars: list[Node] = []
        while self.peek() != '"':
            if self.peek() in ("", "\n"):
                self.refuse("a string is never closed", start)
            chars.append(Class(self.one()))
        self.take()
        return pattern.sequence(chars) if chars else EMPTY

    def char_class(self) -> Node:
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while self.peek() != "]":
            if self.peek() in ("", "\n"):
                self.refuse("a '[' is never closed", start)
            low = self.one()[0][0]
            high = low
            if self.peek() == "-" and self.peek(2) not in ("-]", "-"):
                self.at += 1
                high = self.one()[0][0]
            if high < low:
                self.refuse("the ends of a range are out of order", start)
            ranges.append((low, high))
        self.take()
        chars = charset.complement(charset.of(ranges)) if negated else charset.of(ranges)
        if not chars:
            self.refuse("a class holds no character", start)
        return Class(chars)

    def one(self) -> Chars:
        """One character of a string or a class, escaped or not."""
        char = self.peek()
        self.at += 1
        code = self.escaped() if char == "\\" else ord(char)
        chars = charset.of([(code, code)])
        if not chars:
            self.refuse("an escape names no character")
        return chars

    def escaped(self) -> int:
        char = self.peek()
        self.at += 1
        if char in _HEX:
            digits = self.peek(_HEX[char])
            self.at += len(digits)
            if len(digits) < _HEX[char] or not re.fullmatch("[0-9a-fA-F]+", digits):
                self.refuse(f"\\{char} needs {_HEX[char]} hexadecimal digits")
            if int(digits, 16) > charset.LAST:
                self.refuse("an escape names no character")
            return int(digits, 16)
        if char in _CONTROLS:
            return ord(_CONTROLS[char])
        if not char or (char.isascii() and char.isalnum()):
            self.refuse(f"\\{char} is not an escape")
        return ord(char)
