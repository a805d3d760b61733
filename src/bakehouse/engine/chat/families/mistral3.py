"""Mistral with the tokenizer that has its delimiters as special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.calls import CallSyntax, mistral_calls
from bakehouse.engine.chat.family import Family, Piece, Typed, to_json
from bakehouse.engine.chat.tools import wrapped


class Mistral3(Family):
    name: ClassVar[str] = "mistral3"
    stops: ClassVar[tuple[str, ...]] = ("</s>",)
    turn_end: ClassVar[str] = "</s>"
    bos: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("[INST]", "[/INST]")
    calls = CallSyntax(open="[TOOL_CALLS]", close=None, parse=mistral_calls)

    def system(self, text: str) -> list[Piece] | None:
        return ["[SYSTEM_PROMPT]", text, "[/SYSTEM_PROMPT]"]

    def user(self, text: str, held: str = "") -> list[Piece]:
        return ["[INST]", Typed(text), "[/INST]"]

    def assistant(self, text: str) -> list[Piece]:
        return [text, "</s>"]

    def cue(self, *, thinking: bool) -> list[Piece]:
        return []

    def tools(self, schemas: Sequence[dict[str, Any]]) -> list[Piece]:
        return ["[AVAILABLE_TOOLS]", Typed(to_json([wrapped(schema) for schema in schemas])), "[/AVAILABLE_TOOLS]"]

    def tool(self, turn: Turn) -> list[Piece]:
        return ["[TOOL_RESULTS]", Typed(turn.text), "[/TOOL_RESULTS]"]
