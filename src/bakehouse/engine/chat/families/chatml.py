"""ChatML: the default, for models that no other family knows."""

from __future__ import annotations

from typing import ClassVar

from bakehouse.engine.chat.family import Family, Piece, Typed


class ChatML(Family):
    name: ClassVar[str] = "chatml"
    stops: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    turn_end: ClassVar[str] = "<|im_end|>"
    glue: ClassVar[str] = "\n"

    def system(self, text: str) -> list[Piece] | None:
        return self.turn("system", text)

    def user(self, text: str, held: str = "") -> list[Piece]:
        return self.turn("user", Typed(text))

    def assistant(self, text: str) -> list[Piece]:
        return self.turn("assistant", text)

    def cue(self, *, thinking: bool) -> list[Piece]:
        return ["<|im_start|>assistant\n"]

    def turn(self, role: str, text: Piece) -> list[Piece]:
        return [f"<|im_start|>{role}\n", text, "<|im_end|>\n"]
