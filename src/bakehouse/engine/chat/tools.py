"""Tool declarations: JSON texts in, one turn out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.errors import BadRequest


def declaration(schemas: Sequence[str]) -> Turn:
    """The turn that declares tools, each given as the JSON text of a function, bare or in OpenAI's wrapper.

    Raises `BadRequest` that names the index of what is no such function.
    """
    found = [_parse(index, text) for index, text in enumerate(schemas)]
    try:
        return Turn("tools", json.dumps(found, ensure_ascii=False))
    except RecursionError:
        raise BadRequest.at("tools", "one of them is nested too deeply") from None


def _parse(index: int, text: str) -> Any:
    field = f"tools[{index}]"
    try:
        schema = json.loads(text)
    except (TypeError, ValueError) as error:
        raise BadRequest.at(field, f"not JSON: {error}") from error
    except RecursionError:
        raise BadRequest.at(field, "it is nested too deeply") from None
    return checked(field, schema)


def checked(field: str, schema: Any) -> dict[str, Any]:
    """*schema* if it is a function with a name, else `BadRequest`."""
    if not isinstance(schema, dict):
        raise BadRequest.at(field, "a tool is a JSON object")
    name = bare(schema).get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest.at(field, "a tool needs a name: `name`, or `function.name`")
    return schema


def bare(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function itself, without the wrapper around it."""
    inner = schema.get("function")
    return inner if isinstance(inner, Mapping) else schema


def wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    """The function in OpenAI's wrapper, which templates expect."""
    return schema if isinstance(schema.get("function"), Mapping) else {"type": "function", "function": schema}


def declared(turn: Turn) -> list[dict[str, Any]]:
    """The functions of a turn that `declaration` made. Raises `BadRequest` for any other text."""
    try:
        schemas = json.loads(turn.text)
    except ValueError as error:
        raise BadRequest.at("tools", f"not a JSON list: {error}") from error
    if not isinstance(schemas, list):
        raise BadRequest.at("tools", "not a JSON list")
    return [checked(f"tools[{index}]", schema) for index, schema in enumerate(schemas)]
