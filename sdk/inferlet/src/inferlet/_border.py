"""What a program passes to its host, looked at before it crosses: a value of another type would end the program at the
sandbox's border, without a word.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

from inferlet.errors import BadRequest

#: Numbers are 32 bits wide there.
_TOP = 2**32


def checked(function: Callable[..., Any], called: Callable[..., Any]) -> Callable[..., Any]:
    """*function*; for arguments of other types than those of *called*, a method of `_host`, it raises `BadRequest`.

    Written out as dataclasses are, because a call of the host takes ten microseconds: what is fine is seen at once.
    """
    code = called.__code__
    names = code.co_varnames[1 : code.co_argcount]
    if not names:
        return function
    arguments = ", ".join(_CHECKS[called.__annotations__[name]].format(name) for name in names)
    found: Callable[..., Any] = eval(
        f"lambda {', '.join(names)}: function({arguments})", {**_NAMES, "function": function}
    )
    return found


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        kind = type(value).__name__
        raise BadRequest(f"{name}: must be text, not {kind}{'; await it' if kind == 'coroutine' else ''}")
    # Of two bytes a character, or more, are only texts with characters above 255: all others are no surrogates.
    if not (value.isascii() or sys.getsizeof(value) < 2 * len(value)):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"{name}: no text: character {error.start} is half a surrogate pair") from None
    return value


def _number(name: str, value: Any) -> int:
    if type(value) is not int:
        try:
            value = operator.index(value)
        except TypeError:
            raise BadRequest(f"{name}: must be an integer, not {type(value).__name__}") from None
    if not 0 <= value < _TOP:
        raise BadRequest(f"{name}: must be 0 or more, and below 2**32, not {value}")
    return int(value)


def _seconds(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise BadRequest(f"{name}: must be a number, not {type(value).__name__}")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name}: must be true or false, not {value!r}")
    return value


def _text_or_none(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


_NAMES = {
    "as_text": _text,
    "as_text_or_none": _text_or_none,
    "as_number": _number,
    "as_seconds": _seconds,
    "as_flag": _flag,
}
#: What is passed on, by the type of an argument that is called {0}.
_CHECKS = {
    "str": "{0} if {0}.__class__ is str and {0}.isascii() else as_text('{0}', {0})",
    "str | None": "as_text_or_none('{0}', {0})",
    "int": "{0} if {0}.__class__ is int and 0 <= {0} < 4294967296 else as_number('{0}', {0})",
    "float": "as_seconds('{0}', {0})",
    "bool": "as_flag('{0}', {0})",
}
