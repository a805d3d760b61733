"""Llama 3 and its successors: roles in headers, a call is the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.family import Family, Piece, Typed, to_json
from bakehouse.engine.chat.tools import wrapped
from bakehouse.engine.chat.whole import WholeCall

#: What the public template says before the schemas; the dates are the fixed ones it falls back to.
_TOOLS = (
    "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    "You have access to the following functions. To call a function, please respond with JSON for a function call."
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)


class Llama3(Family):
    name: ClassVar[str] = "llama3"
    stops: ClassVar[tuple[str, ...]] = ("<|eot_id|>", "<|end_of_text|>")
    turn_end: ClassVar[str] = "<|eot_id|>"
    bos: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    calls = WholeCall(prefix="<|python_tag|>")

    def system(self, text: str) -> list[Piece] | None:
        return self._turn("system", text)

    def user(self, text: str, held: str = "") -> list[Piece]:
        return self._turn("user", Typed(text))

    def assistant(self, text: str) -> list[Piece]:
        return self._turn("assistant", text)

    def tool(self, turn: Turn) -> list[Piece]:
        return self._turn("ipython", Typed(turn.text))

    def cue(self, *, thinking: bool) -> list[Piece]:
        return [self._header("assistant")]

    def tools_text(self, schemas: Sequence[dict[str, Any]]) -> str | None:
        return _TOOLS + "\n\n".join(to_json(wrapped(schema), indent=4) for schema in schemas)

    def _turn(self, role: str, text: Piece) -> list[Piece]:
        return [self._header(role), text, "<|eot_id|>"]

    def _header(self, role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"
