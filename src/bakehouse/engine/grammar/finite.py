"""Whether a prepared schema has a finite value: recursion that nothing ends would never let a generation finish."""

from __future__ import annotations

from typing import Any

from bakehouse.engine.errors import BadRequest

_PREFIX = "#/$defs/"


def check_finite(root: dict[str, Any], field: str) -> None:
    """Raises `BadRequest` if each value of *root* would hold itself. Definitions are found ready until none is new."""
    definitions: dict[str, Any] = root.get("$defs", {})
    ready: set[str] = set()
    while new := {n for n, s in definitions.items() if n not in ready and _ready(s, ready)}:
        ready |= new
    if not _ready(root, ready):
        raise BadRequest.at(field, "the schema refers to itself without an end: no finite value fits it")


def _ready(schema: Any, ready: set[str]) -> bool:
    """Whether a value of *schema* can be made of definitions that are *ready*."""
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema is not False
    if "$ref" in schema and schema["$ref"].removeprefix(_PREFIX) not in ready:
        return False
    if any(not _ready(part, ready) for part in schema.get("allOf", [])):
        return False
    if any(word in schema and not any(_ready(p, ready) for p in schema[word]) for word in ("anyOf", "oneOf")):
        return False
    return _own_kinds(schema, ready)


def _own_kinds(schema: dict[str, Any], ready: set[str]) -> bool:
    """Some type that the schema allows must be possible; only arrays and objects hold others."""
    given = schema.get("type", ["string"])
    types = given if isinstance(given, list) else [given]
    if any(kind not in ("array", "object") for kind in types):
        return True
    return ("array" in types and _array(schema, ready)) or ("object" in types and _object(schema, ready))


def _array(schema: dict[str, Any], ready: set[str]) -> bool:
    prefix = schema.get("prefixItems", [])
    needed = schema.get("minItems", 0)
    inside = prefix[:needed] + [schema.get("items", True)] * (needed > len(prefix))
    return all(_ready(item, ready) for item in inside)


def _object(schema: dict[str, Any], ready: set[str]) -> bool:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(_ready(properties.get(name, others), ready) for name in schema.get("required", []))
