"""``--limit NAME=VALUE``: what a program may use, as people write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from bakehouse.cli.failures import Failure
from bakehouse.inferlets.base import Limits
from bakehouse.settings import Settings
from bakehouse.settings.units import parse_duration, parse_size

_KINDS = {field.name: type(field.default) for field in fields(Limits)}
_SIZES = ("memory", "message", "file", "output")
_TIMES = ("cpu", "wall")


def read_limits(pairs: Iterable[str], settings: Settings) -> Limits:
    """The limits of *settings*, changed by *pairs*: they are no bound for whoever starts the engine. Raises Failure."""
    # Imported here, because `wiring` loads much.
    from bakehouse.wiring.chosen import instance_limits

    given: dict[str, Any] = asdict(instance_limits(settings))
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in _KINDS:
            raise Failure(f"--limit {pair}: write NAME=VALUE, where NAME is one of {', '.join(_KINDS)}")
        given[name] = _number(pair, name, value)
    try:
        return Limits(**given)
    except ValueError as error:
        raise Failure(f"--limit {error}") from error


def _number(pair: str, name: str, value: str) -> float:
    try:
        if name in _SIZES:
            return int(parse_size(value))
        if name in _TIMES:
            return float(parse_duration(value))
        return int(value)
    except ValueError as error:
        raise Failure(f"--limit {pair}: {error}") from error
