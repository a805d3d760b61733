"""JSON schemas of functions as TypeScript types, the way GPT-OSS is told of its tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bakehouse.engine.chat.tools import bare

_SIMPLE = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def namespace(schemas: Sequence[Mapping[str, Any]]) -> str:
    """All functions in one namespace; descriptions become comments."""
    functions = [_function(bare(schema)) for schema in schemas]
    return "namespace functions {\n\n" + "\n\n".join(functions) + "\n\n} // namespace functions"


def _function(schema: Mapping[str, Any]) -> str:
    parameters = schema.get("parameters")
    has_fields = isinstance(parameters, Mapping) and parameters.get("properties")
    argument = f"_: {_object(parameters, '')}" if isinstance(parameters, Mapping) and has_fields else ""
    return f"{_comment(schema, '')}type {schema['name']} = ({argument}) => any;"


def _comment(schema: Mapping[str, Any], indent: str) -> str:
    text = schema.get("description")
    return "".join(f"{indent}// {line}\n" for line in str(text).splitlines()) if text else ""


def _object(schema: Mapping[str, Any], indent: str) -> str:
    required = schema.get("required") or ()
    lines = []
    for name, field in (schema.get("properties") or {}).items():
        field = field if isinstance(field, Mapping) else {}
        default = f", // default: {json.dumps(field['default'], ensure_ascii=False)}" if "default" in field else ","
        mark = "" if name in required else "?"
        lines.append(f"{_comment(field, indent)}{indent}{name}{mark}: {_type(field, indent)}{default}\n")
    return "{\n" + "".join(lines) + indent + "}"


def _type(schema: Mapping[str, Any], indent: str) -> str:
    """A type that says no more than *schema* does; what TypeScript cannot say is ``any``."""
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return " | ".join(_type(each, indent) for each in schema[key])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": each}, indent) for each in kind)
    if kind == "object" and schema.get("properties"):
        return _object(schema, indent + "  ")
    if kind == "array":
        items = schema.get("items")
        inner = _type(items, indent) if isinstance(items, Mapping) else "any"
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    return _SIMPLE.get(str(kind), "object" if kind == "object" else "any")
