"""Bounds of numbers in schemas, so that none grows without end and none is off by its edge."""

from __future__ import annotations

from typing import Any

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

#: Every reader of JSON keeps integers up to this exactly (RFC 8259, section 6).
SAFE_INTEGER = 2**53 - 1

#: A divisor that llguidance can hold, and with it a limit of decimals.
FINEST = 1e-9


def bound_numbers(schema: dict[str, Any], types: list[str]) -> None:
    """Changes *schema*: bounds where it has none, and a limit of decimals where its own bounds are not finer."""
    if not {"integer", "number"} & set(types):
        return
    given = [schema[word] for word in BOUNDS if word in schema]
    if "minimum" not in schema and "exclusiveMinimum" not in schema:
        schema["minimum"] = min([-SAFE_INTEGER, *(2 * value for value in given)])
    if "maximum" not in schema and "exclusiveMaximum" not in schema:
        schema["maximum"] = max([SAFE_INTEGER, *(2 * value for value in given)])
    if "number" not in types:
        return
    if "multipleOf" not in schema and all(round(value, 6) == value for value in given):
        schema["multipleOf"] = FINEST
    _move_whole_edges(schema)


def _move_whole_edges(schema: dict[str, Any]) -> None:
    """A whole number that is excluded moves inward by a little, where both bounds share it as their whole part.

    There llguidance 1.9 lets the bound itself pass: ``exclusiveMinimum: 7, maximum: 7.5`` would allow 7.
    """
    low = max(schema[word] for word in ("minimum", "exclusiveMinimum") if word in schema)
    high = min(schema[word] for word in ("maximum", "exclusiveMaximum") if word in schema)
    if int(low) != int(high) or low >= high:
        return
    little = max(min(FINEST, (high - low) / 1000), abs(low) * 2e-15)
    if schema.get("exclusiveMinimum") == int(low):
        schema["minimum"] = schema.pop("exclusiveMinimum") + little
    if schema.get("exclusiveMaximum") == int(high):
        schema["maximum"] = schema.pop("exclusiveMaximum") - little
