"""What a request may hold: each field is of the kind that its operation says, and nothing else is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bakehouse.inferlets.errors import InferletError

_REQUIRED = object()


class BadRequest(InferletError):
    code = "bad_request"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: whether a value fits, what fits in words, and what stands for a missing one."""

    fits: Callable[[Any], bool]
    words: str
    default: Any = _REQUIRED

    def read(self, frame: Mapping[str, Any], name: str) -> Any:
        value = frame.get(name, _REQUIRED)
        if value is _REQUIRED:
            if self.default is _REQUIRED:
                raise BadRequest(f"{name}: is missing", field=name)
            return self.default
        if not self.fits(value):
            raise BadRequest(f"{name}: must be {self.words}, not {_shown(value)}", field=name)
        return value


def text(default: Any = _REQUIRED) -> Field:
    return Field(lambda value: isinstance(value, str), "a text", default)


def flag(default: Any = _REQUIRED) -> Field:
    return Field(lambda value: isinstance(value, bool), "true or false", default)


def count(default: Any = _REQUIRED) -> Field:
    return Field(_is_count, "a number from 0 on", default)


def texts(default: Any = _REQUIRED) -> Field:
    return Field(
        lambda value: isinstance(value, list) and all(isinstance(it, str) for it in value), "a list of texts", default
    )


def numbers(default: Any = _REQUIRED) -> Field:
    """An object of numbers by name."""
    return Field(
        lambda value: isinstance(value, dict) and all(_is_number(it) for it in value.values()),
        "an object of numbers",
        default,
    )


def plain(default: Any = _REQUIRED) -> Field:
    """A list of texts, numbers, booleans and nulls."""
    return Field(
        lambda value: isinstance(value, list) and all(it is None or isinstance(it, str | int | float) for it in value),
        "a list of plain values",
        default,
    )


def read_fields(frame: Mapping[str, Any], known: Mapping[str, Field]) -> dict[str, Any]:
    """The fields of a request. Raises `BadRequest` naming what is wrong."""
    for name in frame:
        if name not in known and name not in ("id", "op", "size"):
            raise BadRequest(f"{name}: {frame.get('op')} knows no such field", field=name)
    return {name: field.read(frame, name) for name, field in known.items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
