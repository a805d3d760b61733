"""OLMo 3: ChatML whose cue opens the reasoning, and calls in tags as JSON or as Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.calls import CallSyntax, python_or_json_calls
from bakehouse.engine.chat.families.chatml import ChatML
from bakehouse.engine.chat.family import THINK, Piece, Typed, to_json
from bakehouse.engine.chat.tools import bare

_PREAMBLE = (
    "You are a helpful function-calling AI assistant. You are provided with function signatures within "
    "<functions></functions> XML tags. You may call one or more functions to assist with the user query. "
    "Output any function calls within <function_calls></function_calls> XML tags."
)


class Olmo3(ChatML):
    name: ClassVar[str] = "olmo3"
    needs: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>")
    think: ClassVar[tuple[str, str] | None] = THINK
    calls = CallSyntax(open="<function_calls>", close="</function_calls>", parse=python_or_json_calls, json=False)

    def cue(self, *, thinking: bool) -> list[Piece]:
        return ["<|im_start|>assistant\n", *(["<think>"] if thinking else [])]

    def tools_text(self, schemas: Sequence[dict[str, Any]]) -> str | None:
        return f"{_PREAMBLE} <functions>{to_json([bare(schema) for schema in schemas])}</functions>"

    def tool(self, turn: Turn) -> list[Piece]:
        return self.turn("environment", Typed(turn.text))
