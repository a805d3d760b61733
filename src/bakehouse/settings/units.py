"""Sizes and durations as people write them. Inside the program they are bytes and seconds, always."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_SIZES = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12} | {
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_DURATIONS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "ms": 0.001}
_QUANTITY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


def _quantity(value: Any, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        raise ValueError(f"write a number or something like {example}")
    return float(match[1]) * units[match[2].lower()]


def _no_bool(value: Any) -> Any:
    # To pydantic true is also the number 1, which nobody means who writes `port = true`.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def parse_size(value: Any) -> Any:
    """``"512MiB"`` -> 536870912. Numbers pass through; anything else raises ValueError."""
    if isinstance(value, int | float):
        return _no_bool(value)
    return int(_quantity(value, _SIZES, "512MiB or 2GB"))


def parse_duration(value: Any) -> Any:
    """``"5m"`` -> 300.0. Numbers are seconds and pass through; anything else raises ValueError."""
    if isinstance(value, int | float):
        return _no_bool(value)
    return _quantity(value, _DURATIONS, "30, 30s, 5m or 2h")


def _or_none(parse: Any) -> Any:
    # Neither TOML nor an environment variable has a null.
    def convert(value: Any) -> Any:
        return None if value is None or value in ("", "none") else parse(value)

    return convert


Count = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(allow_inf_nan=False)]
MaybeCount = Annotated[int | None, BeforeValidator(_or_none(_no_bool))]
MaybeSize = Annotated[int | None, BeforeValidator(_or_none(parse_size))]
MaybeSeconds = Annotated[float | None, BeforeValidator(_or_none(parse_duration))]
MaybeText = Annotated[str | None, BeforeValidator(_or_none(lambda value: value))]
