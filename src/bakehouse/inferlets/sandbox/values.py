"""Values on their way across the border: converters are made once for each type, and then do little.

A converter **from** a guest gets the three words of a value and answers in Python; one **to** a guest answers with
the kind and the words. In Python a record and a tuple are tuples, a variant is its case or a pair (case, value), an
enum is its case, a resource is the thing that it stands for, a list of bytes is `bytes`, and a result that comes back
is a pair (whether it is ok, value). A value of the wrong shape raises `TypeError`, `ValueError` or `struct.error`; a
text that is longer than the guest may send is `Refused`.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping
from ctypes import string_at
from struct import Struct
from typing import Any

from bakehouse.inferlets.errors import Refused
from bakehouse.inferlets.sandbox import ffi
from bakehouse.inferlets.sandbox.types import Type

Words = tuple[int, int, int, int]
From = Callable[[int, int, int], Any]
To = Callable[[Any], Words]

#: Of this thread's guest: ``running``, which keeps its things, and ``context``, its store while it is inside a call.
here = threading.local()

#: Bytes from which on a text is looked at as a whole.
_LARGE = 1 << 14
#: Of UTF-8: the bytes that begin characters 128 to 191, and 192 to 255.
_FIRST_LEAD, _LAST_LATIN = 0xC2, 0xC3

_DOUBLE, _WORD, _FLOAT, _HALF = Struct("<d"), Struct("<Q"), Struct("<f"), Struct("<I")
_UNSIGNED = {"u8": (ffi.U8, 8), "u16": (ffi.U16, 16), "u32": (ffi.U32, 32), "u64": (ffi.U64, 64)}
_SIGNED = {"s8": (ffi.S8, 8), "s16": (ffi.S16, 16), "s32": (ffi.S32, 32), "s64": (ffi.S64, 64)}


class Converters:
    """For one set of resources: *resources* says the host type of each name."""

    def __init__(self, resources: Mapping[str, int] | None = None) -> None:
        self._resources = resources or {}

    def from_guest(self, kind: Type) -> From:
        name, *rest = kind
        if name in _SIMPLE_FROM:
            return _SIMPLE_FROM[name]
        if name in _UNSIGNED:
            mask = (1 << _UNSIGNED[name][1]) - 1
            return lambda a, b, c: a & mask
        if name in _SIGNED:
            return _signed_from(_SIGNED[name][1])
        make: Callable[..., From] = getattr(self, f"_{name}_from")
        return make(*rest)

    def to_guest(self, kind: Type) -> To:
        name, *rest = kind
        if name in _SIMPLE_TO:
            return _SIMPLE_TO[name]
        if name in _UNSIGNED:
            return _unsigned_to(*_UNSIGNED[name])
        if name in _SIGNED:
            return _signed_to(*_SIGNED[name])
        make: Callable[..., To] = getattr(self, f"_{name}_to")
        return make(*rest)

    # What a guest says.

    def _option_from(self, inner: Type) -> From:
        take = self.from_guest(inner)
        return lambda a, b, c: take(*ffi.read(a)[1:]) if a else None

    def _result_from(self, ok: Type | None, error: Type | None) -> From:
        takes = [None if each is None else self.from_guest(each) for each in (error, ok)]

        def convert(a: int, b: int, c: int) -> tuple[bool, Any]:
            good = bool(a & 1)
            take = takes[good]
            return good, None if take is None or not b else take(*ffi.read(b)[1:])

        return convert

    def _list_from(self, inner: Type) -> From:
        size = ffi.VALUE.size
        if inner == ("u8",):
            return lambda a, b, c: string_at(b + 8, size * a)[::size] if a else b""
        if inner == ("u32",):
            return lambda a, b, c: memoryview(string_at(b, size * a)).cast("I")[2::8].tolist() if a else []
        take = self.from_guest(inner)
        return lambda a, b, c: [take(*ffi.read(at)[1:]) for at in range(b, b + size * a, size)]

    def _tuple_from(self, inner: tuple[Type, ...]) -> From:
        takes = [self.from_guest(each) for each in inner]
        return lambda a, b, c: tuple(take(*ffi.read(b + at * ffi.VALUE.size)[1:]) for at, take in enumerate(takes))

    def _record_from(self, fields: tuple[tuple[str, Type], ...]) -> From:
        takes = [self.from_guest(each) for _, each in fields]
        return lambda a, b, c: tuple(take(*ffi.entry(b, at)[1:]) for at, take in enumerate(takes))

    def _variant_from(self, cases: tuple[tuple[str, Type | None], ...]) -> From:
        takes = {name: None if each is None else self.from_guest(each) for name, each in cases}

        def convert(a: int, b: int, c: int) -> Any:
            case = string_at(b, a).decode()
            take = takes[case]
            return case if take is None else (case, take(*ffi.read(c)[1:]))

        return convert

    def _enum_from(self, _: tuple[tuple[str, None], ...]) -> From:
        return lambda a, b, c: string_at(b, a).decode()

    def _own_from(self, name: str) -> From:
        kind = self._resources[name]
        return lambda a, b, c: here.running.things[ffi.taken(here.context, a, kind)]

    _borrow_from = _own_from

    # What a guest is told.

    def _option_to(self, inner: Type) -> To:
        give = self.to_guest(inner)
        return lambda value: (ffi.OPTION, 0 if value is None else ffi.boxed(give(value)), 0, 0)

    def ok_to(self, inner: Type | None) -> To:
        """The good case of a result."""
        if inner is None:
            good = (ffi.RESULT, 1, 0, 0)
            return lambda _: good
        give, boxed = self.to_guest(inner), ffi.boxed
        return lambda value: (ffi.RESULT, 1, boxed(give(value)), 0)

    def error_to(self, inner: Type | None) -> To:
        """The bad case of a result."""
        if inner is None:
            return lambda _: (ffi.RESULT, 0, 0, 0)
        give = self.to_guest(inner)
        return lambda value: (ffi.RESULT, 0, ffi.boxed(give(value)), 0)

    def _list_to(self, inner: Type) -> To:
        if inner == ("u8",):
            return lambda value: (ffi.LIST, *ffi.filled(_spread(value, ffi.U8, "B")), 0)
        if inner == ("u32",):
            return lambda value: (ffi.LIST, *ffi.filled(_spread(value, ffi.U32, "I")), 0)
        give = self.to_guest(inner)
        return lambda value: (ffi.LIST, *ffi.sequence([give(each) for each in value]), 0)

    def _tuple_to(self, inner: tuple[Type, ...]) -> To:
        gives = [self.to_guest(each) for each in inner]
        return lambda value: (
            ffi.TUPLE,
            *ffi.sequence([give(each) for give, each in zip(gives, value, strict=True)], kind=ffi.TUPLE),
            0,
        )

    def _record_to(self, fields: tuple[tuple[str, Type], ...]) -> To:
        gives = [(name.encode(), self.to_guest(each)) for name, each in fields]

        def convert(value: Any) -> Words:
            found = [(name, give(each)) for (name, give), each in zip(gives, value, strict=True)]
            return (ffi.RECORD, *ffi.record(found), 0)

        return convert

    def _variant_to(self, cases: tuple[tuple[str, Type | None], ...]) -> To:
        gives = {name: None if each is None else self.to_guest(each) for name, each in cases}

        def convert(value: Any) -> Words:
            case, inner = (value, None) if isinstance(value, str) else value
            give = gives[case]
            return (ffi.VARIANT, *ffi.string(case.encode()), 0 if give is None else ffi.boxed(give(inner)))

        return convert

    def _enum_to(self, _: tuple[tuple[str, None], ...]) -> To:
        return lambda value: (ffi.ENUM, *ffi.string(value.encode()), 0)

    def _own_to(self, name: str) -> To:
        kind = self._resources[name]
        return lambda value: (ffi.RESOURCE, ffi.give(here.context, here.running.keep(value), kind), 0, 0)


def _spread(values: Any, kind: int, letter: str) -> bytes:
    """Numbers laid out as values: a word that says the kind, then the number."""
    numbers = array(letter, values)
    room = array("Q", bytes(8 * 4 * len(numbers)))
    room[::4] = array("Q", [kind]) * len(numbers)
    room[1::4] = array("Q", numbers)
    return room.tobytes()


def _signed_from(bits: int) -> From:
    mask, edge = (1 << bits) - 1, 1 << (bits - 1)
    return lambda a, b, c: ((a & mask) ^ edge) - edge


def _unsigned_to(kind: int, bits: int) -> To:
    top = 1 << bits

    def convert(value: int) -> Words:
        if not 0 <= value < top:
            raise ValueError(f"{value} does not fit {bits} bits")
        return (kind, value, 0, 0)

    return convert


def _signed_to(kind: int, bits: int) -> To:
    half, mask = 1 << (bits - 1), (1 << bits) - 1

    def convert(value: int) -> Words:
        if not -half <= value < half:
            raise ValueError(f"{value} does not fit {bits} bits")
        return (kind, value & mask, 0, 0)

    return convert


def _string_from(a: int, b: int, c: int) -> str:
    # The library has copied it, up to 128 MiB in one call; what is too long anyway is not copied again.
    if a > here.running.longest:
        raise Refused(f"file: {a} bytes in one call; {here.running.longest} are allowed", field="file")
    data = string_at(b, a)
    return data.decode() if a < _LARGE or data.isascii() else _large(data)


def _large(data: bytes) -> str:
    """UTF-8 as text. Where it is packed bytes this takes half the time of `bytes.decode`, which goes one by one."""
    import numpy as np

    units = np.frombuffer(data, np.uint8)
    if units.max() > _LAST_LATIN:
        return data.decode()
    # Behind C3 stand the upper 64 characters less 64, behind C2 the others as they are.
    characters = units.copy()
    characters[1:] += (units[:-1] == _LAST_LATIN).view(np.uint8) << 6
    return np.compress(units < _FIRST_LEAD, characters).tobytes().decode("latin-1")


def _string_to(value: str) -> Words:
    size, where = ffi.string(value.encode())
    return (ffi.STRING, size, where, 0)


_SIMPLE_FROM: dict[str, From] = {
    "bool": lambda a, b, c: bool(a & 1),
    "string": _string_from,
    "f32": lambda a, b, c: _FLOAT.unpack(_HALF.pack(a & 0xFFFFFFFF))[0],
    "f64": lambda a, b, c: _DOUBLE.unpack(_WORD.pack(a))[0],
    "char": lambda a, b, c: chr(a & 0xFFFFFFFF),
}
_SIMPLE_TO: dict[str, To] = {
    "bool": lambda value: (ffi.BOOL, 1 if value else 0, 0, 0),
    "string": _string_to,
    "f32": lambda value: (ffi.F32, _HALF.unpack(_FLOAT.pack(value))[0], 0, 0),
    "f64": lambda value: (ffi.F64, _WORD.unpack(_DOUBLE.pack(value))[0], 0, 0),
    "char": lambda value: (ffi.CHAR, ord(value), 0, 0),
}
