"""Grammars that force one well-formed tool call, in the words of each family of models.

The name is one of the given tools', the arguments follow that tool's own schema. Markers that are one token are asked
for as that token, also where it is special; others as their text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import schema
from bakehouse.engine.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class _Form:
    """``before`` and ``after`` hold markers, which are tokens, between texts. With ``keys`` the call is one JSON object
    of name and arguments; without, the name stands as text and ``between`` it and the arguments come others."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    keys: tuple[str, str] | None = None
    between: tuple[str, ...] = ()


_CHATML = _Form(("<tool_call>", "\n"), ("\n", "</tool_call>"), keys=("name", "arguments"))

_FORMS: dict[str, _Form] = {
    "qwen3": _CHATML,
    "qwen2": _CHATML,
    "llama3": _Form(keys=("name", "parameters")),
    "olmo3": _Form(("<function_calls>",), ("</function_calls>",), keys=("name", "arguments")),
    "mistral3": _Form(("[TOOL_CALLS]",), (), between=("[ARGS]",)),
    "r1": _Form(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"),
        ("\n```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
        between=("\n```json\n",),
    ),
}

FAMILIES = tuple(_FORMS)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Any


def tool_grammar(family: str, tools: Sequence[str], tokenizer: Tokenizer) -> str:
    """A grammar for llguidance. *tools*: JSON texts, bare or wrapped in ``function``. Raises `BadRequest`."""
    form = _FORMS.get(family)
    if form is None:
        raise BadRequest.at("family", f"{family!r} has no form of tool calls; these have: {', '.join(FAMILIES)}")
    if not tools:
        raise BadRequest.at("tools", "a call needs a tool")
    read = [read_tool(text, f"tools[{index}]") for index, text in enumerate(tools)]
    if len({tool.name for tool in read}) < len(read):
        raise BadRequest.at("tools", "two tools have the same name")
    write = _Writer(tokenizer)
    calls = [f"call_{index}" for index in range(len(read))]
    lines = [f"start: {write.all(form.before)} ({' | '.join(calls)}) {write.all(form.after)}"]
    for index, tool in enumerate(read):
        lines += _call(form, tool, index, write)
    return "\n".join(lines) + "\n"


def _call(form: _Form, tool: Tool, index: int, write: _Writer) -> list[str]:
    field = f"tools[{index}].parameters"
    if form.keys is None:
        arguments = schema.prepare_value(tool.parameters, field)
        head = f"call_{index}: {write.text(tool.name)} {write.all(form.between)} args_{index}"
        return [head, f"args_{index}: %json {json.dumps(arguments)}"]
    return [f"call_{index}: %json {json.dumps(_whole_call(form.keys, tool, field))}"]


def _whole_call(keys: tuple[str, str], tool: Tool, field: str) -> dict[str, Any]:
    """One object of name and arguments; the definitions of the arguments' schema move to its root."""
    arguments = schema.prepare_value(tool.parameters, field)
    options, definitions = arguments.pop("x-guidance"), arguments.pop("$defs", {})
    return {
        "x-guidance": options,
        "$defs": definitions,
        "type": "object",
        "properties": {keys[0]: {"const": tool.name}, keys[1]: arguments},
        "required": list(keys),
        "additionalProperties": False,
    }


def read_tool(text: str, field: str) -> Tool:
    """The name and the parameters' schema of a tool; without parameters its arguments are an empty object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest.at(field, f"a tool is a JSON object: {error}") from None
    inner = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise BadRequest.at(field, "a tool is a JSON object with a name, of its own or in 'function'")
    parameters = inner.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise BadRequest.at(f"{field}.parameters", "must be the schema of an object")
    return Tool(inner["name"], {"type": "object", **parameters})


class _Writer:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def all(self, pieces: Sequence[str]) -> str:
        return " ".join(self.piece(piece) for piece in pieces)

    def piece(self, piece: str) -> str:
        token = self.tokenizer.id_of(piece) if piece[0] in "<[" else None
        return f"<[{token}]>" if token is not None else self.text(piece)

    def text(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)
