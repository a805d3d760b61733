"""GPT-OSS: messages with channels (harmony); tools are declared as TypeScript types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Decoder, Turn
from bakehouse.engine.chat.decode import ThinkSyntax
from bakehouse.engine.chat.family import Family, Piece, Typed, to_json
from bakehouse.engine.chat.harmony import HarmonyDecoder
from bakehouse.engine.chat.typescript import namespace
from bakehouse.engine.tokenizer.base import Tokenizer


class GptOss(Family):
    name: ClassVar[str] = "gpt_oss"
    stops: ClassVar[tuple[str, ...]] = ("<|endoftext|>", "<|return|>", "<|call|>")
    turn_end: ClassVar[str] = "<|end|>"
    turn_end_stops: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("<|start|>", "<|channel|>", "<|message|>")
    think: ClassVar[tuple[str, str] | None] = ("<|channel|>analysis<|message|>", "<|end|>")

    def system(self, text: str) -> list[Piece] | None:
        return self._message("developer", text)

    def user(self, text: str, held: str = "") -> list[Piece]:
        return self._message("user", Typed(text))

    def assistant(self, text: str) -> list[Piece]:
        return self._message("assistant<|channel|>final", text)

    def cue(self, *, thinking: bool) -> list[Piece]:
        return ["<|start|>assistant"]

    def tools(self, schemas: Sequence[dict[str, Any]]) -> list[Piece]:
        return self._message("developer", "# Tools\n\n## functions\n\n" + namespace(schemas))

    def tool(self, turn: Turn) -> list[Piece]:
        return [
            "<|start|>functions.",
            Typed(turn.name),
            " to=assistant<|channel|>commentary<|message|>",
            Typed(to_json(turn.text)),
            "<|end|>",
        ]

    def decoder(
        self, tokenizer: Tokenizer, stop_tokens: Sequence[int], think: ThinkSyntax | None, *, tool_use: bool
    ) -> Decoder:
        return HarmonyDecoder(tokenizer, stop_tokens, reasoning=think is not None, tool_use=tool_use)

    def _message(self, header: str, text: Piece) -> list[Piece]:
        return [f"<|start|>{header}<|message|>", text, "<|end|>"]
