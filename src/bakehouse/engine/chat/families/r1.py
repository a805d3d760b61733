"""DeepSeek R1 and V3, and models distilled from them whatever their architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.calls import R1_SEP, CallSyntax, r1_calls
from bakehouse.engine.chat.family import THINK, Family, Piece, Typed, to_json, without_reasoning
from bakehouse.engine.chat.tools import bare

_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")
_OUTPUTS = ("<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>", "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>")

_TOOLS = (
    "\n\n## Tools\n\nYou can call the functions below. To call some, answer with nothing but calls in this form:\n"
    f"{_CALLS[0]}{_CALL[0]}function{R1_SEP}NAME\n```json\n{{ARGUMENTS}}\n```{_CALL[1]}{_CALLS[1]}\n"
)


class R1(Family):
    name: ClassVar[str] = "r1"
    stops: ClassVar[tuple[str, ...]] = ("<｜end▁of▁sentence｜>", "<|EOT|>")
    turn_end: ClassVar[str] = "<｜end▁of▁sentence｜>"
    bos: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("<｜User｜>", "<｜Assistant｜>")
    think: ClassVar[tuple[str, str] | None] = THINK
    think_newline: ClassVar[bool] = True
    calls = CallSyntax(open=_CALL[0], close=_CALL[1], parse=r1_calls, around=_CALLS)

    def system(self, text: str) -> list[Piece] | None:
        return [text]

    def user(self, text: str, held: str = "") -> list[Piece]:
        return ["<｜User｜>", Typed(text)]

    def assistant(self, text: str) -> list[Piece]:
        return ["<｜Assistant｜>", without_reasoning(text), self.turn_end]

    def cue(self, *, thinking: bool) -> list[Piece]:
        return ["<｜Assistant｜>"]

    def tools(self, schemas: Sequence[dict[str, Any]]) -> list[Piece]:
        blocks = "".join(f"\n```json\n{to_json(bare(schema), indent=2)}\n```\n" for schema in schemas)
        return [_TOOLS, Typed(blocks)]

    def tool(self, turn: Turn) -> list[Piece]:
        return [_OUTPUTS[0], Typed(turn.text), _OUTPUTS[1]]
