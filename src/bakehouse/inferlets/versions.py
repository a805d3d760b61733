"""Versions of programs, and what a manifest requires of an interface's version."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)
_REQUIREMENT = re.compile(rf"(\^|~|=|>=|>|<=|<)?\s*{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER})?)?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Version:
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Of ``1.2.3``, nothing shorter and nothing behind it. Raises ValueError."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no version; one is MAJOR.MINOR.PATCH, such as 1.0.0")
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


_FIRST, _NEVER = Version(0, 0, 0), Version(10**9, 0, 0)


@dataclass(frozen=True, slots=True)
class Requirement:
    """Ranges of versions, all of which must hold; each begins with its first version and ends before its second."""

    text: str
    ranges: tuple[tuple[Version, Version], ...]

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Of ``*``, ``^1.2`` (also without the sign), ``~1.2.3``, ``=1``, ``>=1, <2``. Raises ValueError."""
        if text.strip() == "*":
            return cls(text, ())
        return cls(text, tuple(_range(part.strip(), text) for part in text.split(",")))

    def __contains__(self, version: Version) -> bool:
        return all(low <= version < high for low, high in self.ranges)


def _range(part: str, text: str) -> tuple[Version, Version]:
    match = _REQUIREMENT.fullmatch(part)
    if match is None:
        raise ValueError(f"{text!r} requires no version; write one such as ^1.2.0, or >=1.0, <3")
    numbers = [int(number) for number in match.groups()[1:] if number is not None]
    low = Version(*[*numbers, 0, 0][:3])
    last = len(numbers) - 1
    match match.group(1) or "^":
        case "^":
            return low, _after(numbers, next((i for i, number in enumerate(numbers) if number), last))
        case "~":
            return low, _after(numbers, min(1, last))
        case "=":
            return low, _after(numbers, last)
        case ">=":
            return low, _NEVER
        case ">":
            return _after(numbers, last), _NEVER
        case "<":
            return _FIRST, low
        case _:
            return _FIRST, _after(numbers, last)


def _after(numbers: list[int], place: int) -> Version:
    """The first version whose number at *place* is higher."""
    return Version(*[*numbers[:place], numbers[place] + 1, 0, 0][:3])
