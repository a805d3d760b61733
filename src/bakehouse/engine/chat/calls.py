"""How families write tool calls, and reading them. What cannot be read is no call: a decoder makes it text again."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bakehouse.engine.params import ToolCall

Parse = Callable[[str], list[ToolCall] | None]


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """Calls between markers. ``parse`` reads what stands between, None if it is no call.

    ``close`` None: the next ``open`` or the end closes a call. ``around`` are markers around groups of calls, which
    are dropped, and space after them too. ``begins``: a call's first characters; with others it is none. ``json``:
    markers within JSON strings do not count.
    """

    open: str
    close: str | None
    parse: Parse
    around: tuple[str, ...] = ()
    begins: str = ""
    json: bool = True


def json_calls(text: str) -> list[ToolCall] | None:
    """One object with ``name`` and ``arguments`` (or ``parameters``), or a list of such."""
    value = _load(text)
    calls = [_call(each) for each in (value if isinstance(value, list) else [value])]
    found = [call for call in calls if call is not None]
    return found if found and len(found) == len(calls) else None


def object_call(text: str) -> list[ToolCall] | None:
    """As `json_calls`, but a list is no call."""
    return json_calls(text) if text.lstrip().startswith("{") else None


def python_or_json_calls(text: str) -> list[ToolCall] | None:
    """JSON, or one Python call a line with literal keyword arguments, as OLMo 3 was also trained to write."""
    return json_calls(text) or _python_calls(text)


def json_object(text: str) -> str | None:
    """The JSON text of an object, None for anything else."""
    value = _load(text)
    return _dump(value) if isinstance(value, dict) else None


def mistral_calls(text: str) -> list[ToolCall] | None:
    """``name[ARGS]{...}``, or the JSON list of older tokenizers."""
    name, marker, arguments = text.partition("[ARGS]")
    if not marker:
        return json_calls(text)
    return _named(name, arguments)


R1_SEP = "<｜tool▁sep｜>"
_FENCE = "```"


def r1_calls(text: str) -> list[ToolCall] | None:
    """``function<sep>name`` and a fenced block of JSON on the lines below; or ``name<sep>{...}`` of later models."""
    kind, marker, rest = text.partition(R1_SEP)
    if not marker:
        return None
    if kind.strip() != "function":
        return _named(kind, rest)
    name, _, block = rest.partition("\n")
    return _named(name, _unfenced(block))


def _unfenced(block: str) -> str:
    """What stands between its fences, if there are two. No regex: it would try each newline with each fence."""
    opening, newline, rest = block.strip().partition("\n")
    if newline and opening.rstrip() in (_FENCE, f"{_FENCE}json") and rest.endswith(_FENCE):
        return rest.removesuffix(_FENCE)
    return block


def _named(name: str, arguments: str) -> list[ToolCall] | None:
    value = _load(arguments)
    if not name.strip() or not isinstance(value, dict):
        return None
    return [ToolCall(name.strip(), _dump(value))]


def _call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # some models write the arguments as JSON within JSON
        arguments = _load(arguments)
    return ToolCall(value["name"], _dump(arguments)) if isinstance(arguments, dict) else None


def _python_calls(text: str) -> list[ToolCall] | None:
    try:
        tree = ast.parse(text.strip())
        calls = [_python_call(statement) for statement in tree.body]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what the parser and literals raise
        return None
    return calls or None


def _python_call(statement: ast.stmt) -> ToolCall:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("not a call with keyword arguments only")
    arguments = {str(keyword.arg): ast.literal_eval(_json_names(keyword.value)) for keyword in call.keywords}
    return ToolCall(ast.unparse(call.func), _dump(arguments))


def _json_names(value: ast.expr) -> ast.expr:
    """JSON's names for the three constants are read as Python's."""

    class Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            constants = {"true": True, "false": False, "null": None}
            return ast.Constant(constants[node.id]) if node.id in constants else node

    result = Names().visit(value)
    assert isinstance(result, ast.expr)
    return result


def _load(text: str) -> Any:
    """The JSON value of *text*, None if it is none. NaN and infinities are no JSON."""
    try:
        return json.loads(text.strip(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:  # a Python literal that JSON lacks, such as a set
        raise ValueError(str(error)) from error
