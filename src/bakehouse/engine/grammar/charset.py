"""Sets of characters: sorted, disjoint, inclusive ranges of code points. None holds surrogates, as no text does."""

from __future__ import annotations

from collections.abc import Iterable

Chars = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def of(ranges: Iterable[tuple[int, int]]) -> Chars:
    """The union of inclusive *ranges*, in any order, without surrogates."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(_without_surrogates(ranges)):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    first, last = _SURROGATES
    for low, high in ranges:
        if low < first and high >= first:
            yield low, first - 1
        if high > last and low <= last:
            yield last + 1, high
        if high < first or low > last:
            yield low, high


def letters(text: str) -> Chars:
    return of((ord(c), ord(c)) for c in text)


def complement(chars: Chars) -> Chars:
    """Every character that is not in *chars*."""
    gaps = []
    at = 0
    for low, high in chars:
        if low > at:
            gaps.append((at, low - 1))
        at = high + 1
    if at <= LAST:
        gaps.append((at, LAST))
    return of(gaps)


def overlap(left: Chars, right: Chars) -> bool:
    """Whether some character is in both."""
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i][1] < right[j][0]:
            i += 1
        elif right[j][1] < left[i][0]:
            j += 1
        else:
            return True
    return False


def rust(chars: Chars) -> str:
    """*chars* in the syntax of Rust's regex crate; one plain letter or digit stands for itself."""
    if len(chars) == 1 and chars[0][0] == chars[0][1]:
        return _one(chars[0][0])
    inner = "".join(_one(low) if low == high else f"{_one(low)}-{_one(high)}" for low, high in chars)
    return f"[{inner}]"


def _one(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\x{{{code:x}}}"
