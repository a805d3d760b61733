"""Regular expressions as JavaScript writes them, as far as they are regular, read into `pattern` nodes.

Literals, classes, ``. \\d \\w \\s \\D \\W \\S``, ``\\uXXXX \\u{...} \\xXX``, groups, alternation and counts. Greedy and
lazy counts are the same, as the whole output must match. Lookaround, backreferences, ``\\p``, ``\\b`` and a count upon
a count are refused with their position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import charset, pattern
from bakehouse.engine.grammar.charset import Chars
from bakehouse.engine.grammar.pattern import Class, Node, Repeat

_DIGIT = charset.of([(48, 57)])
_WORD = charset.of([(48, 57), (65, 90), (95, 95), (97, 122)])
#: Dialects differ in which characters beyond ASCII are spaces, so ``\s`` allows none of them and ``\S`` neither.
_SPACE = charset.letters("\t\n\v\f\r ")
_ANY_SPACE = charset.of(
    (
        *_SPACE,
        *((0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200A)),
        *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
)
_DOT = charset.complement(charset.letters("\n\r\u2028\u2029"))

#: Escapes of classes: what they surely match, and what they may match in some dialect.
_CLASSES: dict[str, tuple[Chars, Chars]] = {
    "d": (_DIGIT, _DIGIT),
    "w": (_WORD, _WORD),
    "s": (_SPACE, _ANY_SPACE),
    "D": (charset.complement(_DIGIT), charset.complement(_DIGIT)),
    "W": (charset.complement(_WORD), charset.complement(_WORD)),
    "S": (charset.complement(_ANY_SPACE), charset.complement(_SPACE)),
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}

_OPEN = "a '(' is never closed"
_NO_CHARACTER = "this escape names no character"

MAX_COUNT = 10_000
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Parsed:
    """``at_start``, ``at_end``: whether every alternative is anchored there (only then an anchor means anything)."""

    node: Node
    at_start: bool
    at_end: bool


def parse(source: str, field: str = "grammar.source") -> Parsed:
    """*source* as nodes. Raises `BadRequest` with the position of what is refused."""
    pattern.check_text(source, field)
    parser = _Parser(source, field)
    try:
        node = parser.choice(0)
    except RecursionError:
        raise BadRequest.at(field, "groups are nested too deeply") from None
    if parser.at < len(source):
        parser.refuse("a ')' closes no group")
    if pattern.places(node) > pattern.MAX_PLACES:
        raise BadRequest.at(
            field, f"the expression is too large with its counts written out; {pattern.MAX_PLACES} places"
        )
    if pattern.optional(node) > pattern.MAX_OPTIONAL:
        raise BadRequest.at(field, f"more than {pattern.MAX_OPTIONAL} of its parts may be left out")
    return Parsed(node, _anchored(source, "^"), _anchored(source, "$"))


def _anchored(source: str, anchor: str) -> bool:
    return source.startswith("^") if anchor == "^" else source.endswith("$") and not _escaped(source, len(source) - 1)


def _escaped(source: str, at: int) -> bool:
    backslashes = len(source[:at]) - len(source[:at].rstrip("\\"))
    return backslashes % 2 == 1


def to_rust(source: str, field: str = "grammar.source") -> str:
    """*source* for Rust's regex crate; it stands for texts that match it as a whole."""
    return pattern.rust(parse(source, field).node)


class _Parser:
    def __init__(self, source: str, field: str) -> None:
        self.source = source
        self.field = field
        self.at = 0

    def refuse(self, detail: str, at: int | None = None) -> NoReturn:
        where = self.at if at is None else at
        raise BadRequest.at(self.field, f"{detail}, at position {where} of the regular expression")

    def peek(self, length: int = 1) -> str:
        return self.source[self.at : self.at + length]

    def choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self.refuse(f"groups are nested more than {MAX_DEPTH} deep")
        options = [self.sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence(depth))
        return pattern.choice(options)

    def sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            if self.peek() in ("^", "$"):
                self.at += 1
                continue
            parts.append(self.counted(self.atom(depth)))
        return pattern.sequence(parts)

    def counted(self, node: Node) -> Node:
        found = self.count()
        if found is None:
            return node
        if self.peek() == "?":
            self.at += 1
        start = self.at
        if self.peek() == "+" or self.count() is not None:
            self.refuse("a count upon a count is not supported; put the inner one in a group", start)
        return Repeat(node, *found)

    def count(self) -> tuple[int, int | None] | None:
        char = self.peek()
        if char in ("*", "+", "?"):
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        return self.braces() if char == "{" else None

    def braces(self) -> tuple[int, int | None] | None:
        """``{n}``, ``{n,}`` or ``{n,m}``; other braces are plain characters, as in JavaScript."""
        end = self.source.find("}", self.at)
        low, comma, high = self.source[self.at + 1 : max(end, 0)].partition(",")
        if not _digits(low) or (high and not _digits(high)):
            return None
        least, most = int(low), int(high) if high else (None if comma else int(low))
        if max(least, most or 0) > MAX_COUNT:
            self.refuse(f"a count is at most {MAX_COUNT}")
        if most is not None and most < least:
            self.refuse("the counts are out of order")
        self.at = end + 1
        return least, most

    def atom(self, depth: int) -> Node:
        char = self.peek()
        if char == "(":
            return self.group(depth)
        if char == "[":
            return Class(self.char_class())
        if char == "\\":
            return self.escape()
        if char in "*+?" or (char == "{" and self.braces() is not None):
            self.refuse("there is nothing to repeat")
        self.at += 1
        return Class(_DOT) if char == "." else Class(charset.letters(char))

    def group(self, depth: int) -> Node:
        start = self.at
        if self.peek(3) in ("(?=", "(?!") or self.peek(4) in ("(?<=", "(?<!"):
            self.refuse("lookaround is not supported")
        self.at += 1
        if self.peek(2) == "?:":
            self.at += 2
        elif self.peek(2) == "?<":
            self.at = self.source.find(">", self.at) + 1
            if not self.at:
                self.refuse(_OPEN, start)
        elif self.peek() == "?":
            self.refuse("this kind of group is not supported", start)
        node = self.choice(depth + 1)
        if self.peek() != ")":
            self.refuse(_OPEN, start)
        self.at += 1
        return node

    def escape(self) -> Node:
        """What a backslash outside of a class stands for."""
        following = self.source[self.at + 1 : self.at + 2]
        if following in ("b", "B"):
            self.refuse("word boundaries are not supported")
        if following and following in "123456789k":
            self.refuse("backreferences are not supported")
        sure, _ = self.escaped_chars()
        return Class(sure)

    def escaped_chars(self) -> tuple[Chars, Chars]:
        """The characters of the escape that begins here: surely, and in some dialect."""
        start = self.at
        char = self.source[self.at + 1 : self.at + 2]
        self.at += 2
        if char in _CLASSES:
            return _CLASSES[char]
        one = charset.of([(self.code(char, start),) * 2])
        if not one:
            self.refuse(_NO_CHARACTER, start)
        return one, one

    def code(self, char: str, start: int) -> int:
        if not char:
            self.refuse("a backslash at the end escapes nothing", start)
        if char in ("p", "P"):
            self.refuse("Unicode properties are not supported", start)
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char in ("x", "u"):
            return self.hexadecimal(char, start)
        if char == "c" and self.peek().isascii() and self.peek().isalpha():
            self.at += 1
            return ord(self.source[self.at - 1]) % 32
        if char.isascii() and char.isalnum():
            self.refuse(f"\\{char} is not an escape", start)
        return ord(char)

    def hexadecimal(self, char: str, start: int) -> int:
        if char == "u" and self.peek() == "{":
            end = self.source.find("}", self.at)
            digits, self.at = self.source[self.at + 1 : max(end, 0)], end + 1
        else:
            digits = self.peek(2 if char == "x" else 4)
            self.at += len(digits)
            if len(digits) < (2 if char == "x" else 4):
                digits = ""
        code = int(digits, 16) if digits and all(c in "0123456789abcdefABCDEF" for c in digits) else -1
        if 0xD800 <= code < 0xDC00 and self.peek(2) == "\\u":
            self.at += 2
            low = self.hexadecimal("u", start)
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) if 0xDC00 <= low < 0xE000 else -1
        if not 0 <= code <= charset.LAST:
            self.refuse(_NO_CHARACTER, start)
        return code

    def char_class(self) -> Chars:
        """A class in brackets. What a negated one excludes is taken wide, so that the result is surely outside."""
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        sure: list[tuple[int, int]] = []
        wide: list[tuple[int, int]] = []
        while self.peek() != "]":
            if not self.peek():
                self.refuse("a '[' is never closed", start)
            one, other = self.class_item()
            sure += one
            wide += other
        self.at += 1
        chars = charset.complement(charset.of(wide)) if negated else charset.of(sure)
        if not chars:
            self.refuse("this class holds no character", start)
        return chars

    def class_item(self) -> tuple[Chars, Chars]:
        start = self.at
        low = self.class_atom()
        if self.peek() != "-" or self.peek(2) in ("-]", "-"):
            return low
        self.at += 1
        high = self.class_atom()
        if not (_single(low[0]) and _single(high[0])) or low[0][0][0] > high[0][0][0]:
            self.refuse("this range runs between no two characters in order", start)
        both = charset.of([(low[0][0][0], high[0][0][1])])
        return both, both

    def class_atom(self) -> tuple[Chars, Chars]:
        if self.peek() == "\\":
            if self.peek(2) == "\\b":
                self.at += 2
                return charset.letters("\b"), charset.letters("\b")
            return self.escaped_chars()
        char = self.peek()
        self.at += 1
        return charset.letters(char), charset.letters(char)


def _single(chars: Chars) -> bool:
    return len(chars) == 1 and chars[0][0] == chars[0][1]


def _digits(value: str) -> bool:
    return value.isascii() and value.isdigit()
