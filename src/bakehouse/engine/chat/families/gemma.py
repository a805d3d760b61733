"""Gemma 2 and 3: no system turn, so its text goes in front of the user's."""

from __future__ import annotations

from typing import ClassVar

from bakehouse.engine.chat.family import Family, Piece, Typed


class Gemma(Family):
    name: ClassVar[str] = "gemma"
    stops: ClassVar[tuple[str, ...]] = ("<end_of_turn>", "<eos>")
    turn_end: ClassVar[str] = "<end_of_turn>"
    glue: ClassVar[str] = "\n"
    bos: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("<start_of_turn>", "<end_of_turn>")

    def system(self, text: str) -> list[Piece] | None:
        return None

    def user(self, text: str, held: str = "") -> list[Piece]:
        return ["<start_of_turn>user\n", *([f"{held}\n\n"] if held else []), Typed(text), "<end_of_turn>\n"]

    def assistant(self, text: str) -> list[Piece]:
        return ["<start_of_turn>model\n", text, "<end_of_turn>\n"]

    def cue(self, *, thinking: bool) -> list[Piece]:
        return ["<start_of_turn>model\n"]
