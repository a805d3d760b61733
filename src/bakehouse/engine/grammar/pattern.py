"""What regular expressions and EBNF rules are made of, once parsed, and how it is written for llguidance."""

from __future__ import annotations

from dataclasses import dataclass

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import charset
from bakehouse.engine.grammar.charset import Chars


@dataclass(frozen=True, slots=True)
class Class:
    """One character out of a set."""

    chars: Chars


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; of none, the empty text."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """*node*, ``low`` to ``high`` times; ``high`` None: without end."""

    node: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Name:
    """Another rule, by its name."""

    name: str


Node = Class | Sequence | Choice | Repeat | Name

EMPTY = Sequence()

#: Longer sources are refused before they are read.
MAX_SOURCE = 1 << 20

#: More places than this in a written-out expression, and it is refused: a nest of counts grows without bound.
MAX_PLACES = 200_000

#: More parts of sequences that may be left out than this, and it is refused: their lexer takes the square of it.
MAX_OPTIONAL = 10_000


def check_text(source: str, field: str) -> None:
    """Raises `BadRequest` for a string that is no text, as it holds half of a surrogate pair, and for a huge one."""
    if len(source) > MAX_SOURCE:
        raise BadRequest.at(field, f"it may have {MAX_SOURCE} characters, this one has {len(source)}")
    half = next((at for at, char in enumerate(source) if "\ud800" <= char <= "\udfff"), None)
    if half is not None:
        raise BadRequest.at(field, f"half of a surrogate pair stands at position {half}")


def sequence(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def choice(options: list[Node]) -> Node:
    return options[0] if len(options) == 1 else Choice(tuple(options))


def places(node: Node) -> int:
    """How many character places *node* has with its counts written out; a name counts one."""
    match node:
        case Class() | Name():
            return 1
        case Sequence(parts):
            return sum(places(part) for part in parts)
        case Choice(options):
            return sum(places(option) for option in options)
        case Repeat(inner, low, high):
            return places(inner) * max(low if high is None else high, 1)


def optional(node: Node) -> int:
    """How many parts of its sequences may be left out, counts not written out."""
    match node:
        case Class() | Name():
            return 0
        case Sequence(parts):
            return sum(optional(part) + _may_be_empty(part) for part in parts)
        case Choice(options):
            return sum(optional(option) for option in options)
        case Repeat(inner, _, _):
            return optional(inner)


def _may_be_empty(node: Node) -> bool:
    match node:
        case Class() | Name():
            return False
        case Sequence(parts):
            return all(_may_be_empty(part) for part in parts)
        case Choice(options):
            return any(_may_be_empty(option) for option in options)
        case Repeat(inner, low, _):
            return low == 0 or _may_be_empty(inner)


def names(node: Node) -> list[str]:
    """The rules that *node* names, as often as it does."""
    match node:
        case Name(name):
            return [name]
        case Sequence(children) | Choice(children):
            return [name for child in children for name in names(child)]
        case Repeat(inner, _, _):
            return names(inner)
        case Class():
            return []


def count(low: int, high: int | None) -> str:
    """The suffix of a repetition, the same in Rust's regexes and in Lark."""
    if (low, high) in ((0, None), (1, None), (0, 1)):
        return {(0, None): "*", (1, None): "+", (0, 1): "?"}[(low, high)]
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def rust(node: Node) -> str:
    """*node*, which holds no names, in the syntax of Rust's regex crate."""
    match node:
        case Class(chars):
            return charset.rust(chars)
        case Sequence(parts):
            return "".join(rust(part) if not isinstance(part, Choice) else f"(?:{rust(part)})" for part in parts)
        case Choice(options):
            return "|".join(rust(option) for option in options)
        case Repeat(inner, low, high):
            body = rust(inner)
            return (body if isinstance(inner, Class) else f"(?:{body})") + count(low, high)
        case Name(name):
            raise TypeError(f"a regular expression cannot name the rule {name}")
