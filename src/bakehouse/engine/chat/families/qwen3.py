"""Qwen3: Qwen2 with reasoning, which is left out of turns that are replayed."""

from __future__ import annotations

from typing import ClassVar

from bakehouse.engine.chat.families.qwen2 import Qwen2
from bakehouse.engine.chat.family import THINK, Piece, without_reasoning


class Qwen3(Qwen2):
    name: ClassVar[str] = "qwen3"
    stops: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
    think: ClassVar[tuple[str, str] | None] = THINK

    def assistant(self, text: str) -> list[Piece]:
        return self.turn("assistant", without_reasoning(text))

    def cue(self, *, thinking: bool) -> list[Piece]:
        """Told not to think, the model is given an empty block of reasoning."""
        return ["<|im_start|>assistant\n", *([] if thinking else ["<think>\n\n</think>\n\n"])]
