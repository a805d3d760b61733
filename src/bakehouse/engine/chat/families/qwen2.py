"""Qwen2 and Qwen2.5: ChatML with tool calls in tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.calls import CallSyntax, json_calls
from bakehouse.engine.chat.families.chatml import ChatML
from bakehouse.engine.chat.family import Piece, Typed, to_json
from bakehouse.engine.chat.tools import wrapped

#: The tools section that these models were trained on, before and after the schemas.
_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)


class Qwen2(ChatML):
    name: ClassVar[str] = "qwen2"
    needs: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>")
    calls = CallSyntax(open="<tool_call>", close="</tool_call>", parse=json_calls, begins="{[")

    def tools_text(self, schemas: Sequence[dict[str, Any]]) -> str | None:
        return _BEFORE + "".join("\n" + to_json(wrapped(schema)) for schema in schemas) + _AFTER

    def tool(self, turn: Turn) -> list[Piece]:
        return ["<|im_start|>user\n<tool_response>\n", Typed(turn.text), "\n</tool_response><|im_end|>\n"]
