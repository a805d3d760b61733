"""Types of what crosses the border, written down as WIT writes them: ``result<option<string>, failure>``.

A type is a tree of tuples, its kind first, so that two are the same when they are equal. Whose resource a handle is
stands in ours only: a component says no names, and the runtime compares them by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wasmtime import component as wasm

Type = tuple[Any, ...]

NUMBERS = ("bool", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f32", "f64", "char", "string")
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*|->|[<>(){},:])")


@dataclass(frozen=True, slots=True)
class Signature:
    parameters: tuple[Type, ...]
    result: Type | None

    def __str__(self) -> str:
        inside = ", ".join(spell(each) for each in self.parameters)
        return f"({inside})" + ("" if self.result is None else f" -> {spell(self.result)}")

    @property
    def has_resources(self) -> bool:
        return any(_holds_resource(each) for each in (*self.parameters, self.result))


def _holds_resource(tree: Any) -> bool:
    if not isinstance(tree, tuple) or not tree:
        return False
    return tree[0] in ("own", "borrow") or any(_holds_resource(each) for each in tree)


class Parser:
    """Reads types and signatures; *names* are types that have one."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names: dict[str, Type] = {}
        for name, text in (names or {}).items():
            self._names[name] = self.type(text)

    def type(self, text: str) -> Type:
        tokens = _Tokens(text)
        found = self._type(tokens)
        tokens.done()
        return found

    def signature(self, text: str) -> Signature:
        """``(u32, string) -> result<u32, failure>``"""
        tokens = _Tokens(text)
        tokens.expect("(")
        parameters: list[Type] = []
        while not tokens.skip(")"):
            parameters.append(self._type(tokens))
            tokens.skip(",")
        result = self._type(tokens) if tokens.skip("->") else None
        tokens.done()
        return Signature(tuple(parameters), result)

    def _type(self, tokens: _Tokens) -> Type:
        word = tokens.next()
        if word in NUMBERS:
            return (word,)
        if word in ("option", "list"):
            return (word, *self._inside(tokens))
        if word in ("own", "borrow"):
            tokens.expect("<")
            name = tokens.next()
            tokens.expect(">")
            return (word, name)
        if word == "tuple":
            return (word, self._inside(tokens))
        if word == "result":
            ok, error = (*self._inside(tokens), None, None)[:2] if tokens.peek() == "<" else (None, None)
            return (word, ok, error)
        if word in ("record", "variant", "enum"):
            return (word, self._fields(tokens))
        if word in self._names:
            return self._names[word]
        raise ValueError(f"no type {word!r}")

    def _inside(self, tokens: _Tokens) -> tuple[Any, ...]:
        tokens.expect("<")
        found: list[Any] = []
        while not tokens.skip(">"):
            found.append(None if tokens.skip("_") else self._type(tokens))
            tokens.skip(",")
        return tuple(found)

    def _fields(self, tokens: _Tokens) -> tuple[tuple[str, Type | None], ...]:
        """``{a: u32, b}``"""
        tokens.expect("{")
        found: list[tuple[str, Type | None]] = []
        while not tokens.skip("}"):
            name = tokens.next()
            found.append((name, self._type(tokens) if tokens.skip(":") else None))
            tokens.skip(",")
        return tuple(found)


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)[::-1]

    def peek(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def next(self) -> str:
        if not self._tokens:
            raise ValueError(f"{self._text!r} ends early")
        return str(self._tokens.pop())

    def skip(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self._tokens.pop()
        return True

    def expect(self, token: str) -> None:
        if not self.skip(token):
            raise ValueError(f"{self._text!r}: {token!r} expected, not {self.peek()!r}")

    def done(self) -> None:
        if self._tokens:
            raise ValueError(f"{self._text!r}: {self.peek()!r} is one too many")


def nameless(tree: Any) -> Any:
    """The same without saying whose resources its handles are."""
    if not isinstance(tree, tuple):
        return tree
    if tree and tree[0] in ("own", "borrow"):
        return (tree[0],)
    return tuple(nameless(each) for each in tree)


def same(ours: Signature, theirs: Signature) -> bool:
    return bool(nameless(ours.parameters) == theirs.parameters and nameless(ours.result) == theirs.result)


def signature_of(function: wasm.FuncType) -> Signature:
    """What a component says of one of its imports or exports. Raises `ValueError` for a type that we never use."""
    result = function.result
    return Signature(tuple(type_of(each) for _, each in function.params), None if result is None else type_of(result))


def type_of(found: wasm.ValType) -> Type:
    match found:
        case wasm.ListType():
            return ("list", type_of(found.element))
        case wasm.OptionType():
            return ("option", type_of(found.payload))
        case wasm.ResultType():
            return ("result", _maybe(found.ok), _maybe(found.err))
        case wasm.TupleType():
            return ("tuple", tuple(type_of(each) for each in found.elements))
        case wasm.RecordType():
            return ("record", tuple((name, type_of(each)) for name, each in found.fields))
        case wasm.VariantType():
            return ("variant", tuple((name, _maybe(each)) for name, each in found.cases))
        case wasm.EnumType():
            return ("enum", tuple((name, None) for name in found.names))
        case wasm.OwnType():
            return ("own",)
        case wasm.BorrowType():
            return ("borrow",)
    name = type(found).__name__.lower()
    if name not in NUMBERS:
        raise ValueError(f"the type {name}")
    return (name,)


def _maybe(found: wasm.ValType | None) -> Type | None:
    return None if found is None else type_of(found)


def spell(tree: Type | None) -> str:
    """As WIT writes it."""
    if tree is None:
        return "_"
    kind, *rest = tree
    if kind in NUMBERS:
        return str(kind)
    if kind in ("record", "variant", "enum"):
        inside = ", ".join(name + ("" if each is None else f": {spell(each)}") for name, each in rest[0])
        return f"{kind} {{{inside}}}"
    if kind == "tuple":
        return f"tuple<{', '.join(spell(each) for each in rest[0])}>"
    if kind in ("own", "borrow"):
        return f"{kind}<{rest[0] if rest else 'resource'}>"
    if kind == "result" and rest == [None, None]:
        return "result"
    return f"{kind}<{', '.join(spell(each) for each in rest)}>"
