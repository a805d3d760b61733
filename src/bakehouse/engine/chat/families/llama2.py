"""Llama 2 chat: instructions in brackets that are ordinary text; the system text stands inside the first of them."""

from __future__ import annotations

from typing import ClassVar

from bakehouse.engine.chat.family import Family, Piece, Typed


class Llama2(Family):
    name: ClassVar[str] = "llama2"
    stops: ClassVar[tuple[str, ...]] = ("</s>",)
    turn_end: ClassVar[str] = "</s>"
    bos: ClassVar[bool] = True
    joined: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("<s>", "</s>")

    def system(self, text: str) -> list[Piece] | None:
        return None

    def user(self, text: str, held: str = "") -> list[Piece]:
        system: list[Piece] = ["<<SYS>>\n", held, "\n<</SYS>>\n\n"] if held else []
        return ["[INST] ", *system, Typed(text), " [/INST]"]

    def assistant(self, text: str) -> list[Piece]:
        return [" ", text, " ", "</s>"]

    def cue(self, *, thinking: bool) -> list[Piece]:
        return []
