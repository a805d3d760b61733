"""The skeleton of families: what a family's own file fills in, and what most of them share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bakehouse.engine.chat.base import Decoder, Turn
from bakehouse.engine.chat.calls import CallSyntax
from bakehouse.engine.chat.decode import BlockDecoder, ThinkSyntax
from bakehouse.engine.chat.whole import WholeCall
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Typed:
    """Text of a user or a tool, beside the plain ``str`` of delimiters and of what the program itself says.

    No special token can come out of it.
    """

    text: str


Piece = str | Typed

#: The reasoning markers that nearly all models share.
THINK = ("<think>", "</think>")


class Family(ABC):
    """What one family's turns look like where the tokenizer brings no template, and how its output is read.

    Each turn method gives pieces, which are encoded one by one, or raises `BadRequest`.
    """

    name: ClassVar[str]
    #: Every special token that ends a generation, and the one of them that ends a turn in a conversation.
    stops: ClassVar[tuple[str, ...]]
    turn_end: ClassVar[str]
    #: What the template writes after ``turn_end``, which a model does not generate.
    glue: ClassVar[str] = ""
    #: True if a conversation begins with the beginning-of-sequence token.
    bos: ClassVar[bool] = False
    #: True if ``turn_end`` also ends a generation, as everywhere but in GPT-OSS.
    turn_end_stops: ClassVar[bool] = True
    #: True if delimiters are ordinary text, which models learned together with the words beside them.
    joined: ClassVar[bool] = False
    #: Reasoning markers the family always has; others are found by the tokenizer's vocabulary.
    think: ClassVar[tuple[str, str] | None] = None
    think_newline: ClassVar[bool] = False
    calls: ClassVar[CallSyntax | WholeCall | None] = None
    #: Special tokens without which a tokenizer is not of this family.
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def system(self, text: str) -> list[Piece] | None:
        """A system turn; None if it must wait for the user's."""

    @abstractmethod
    def user(self, text: str, held: str = "") -> list[Piece]:
        """A user's turn; *held* is the system text that waited for it."""

    @abstractmethod
    def assistant(self, text: str) -> list[Piece]:
        """A whole turn of the assistant's, replayed."""

    @abstractmethod
    def cue(self, *, thinking: bool) -> list[Piece]:
        """What opens a turn of the assistant's."""

    def tool(self, turn: Turn) -> list[Piece]:
        """The answer of the tool ``turn.name``."""
        raise BadRequest.at("tool", f"models of the family {self.name} were not trained to read tool results")

    def tools(self, schemas: Sequence[dict[str, Any]]) -> list[Piece]:
        """A declaration of tools, a turn of its own."""
        text = self.tools_text(schemas)
        pieces = None if text is None else self.system(text)
        if pieces is None:
            raise BadRequest.at("tools", f"models of the family {self.name} were not trained to call tools")
        return pieces

    def tools_text(self, schemas: Sequence[dict[str, Any]]) -> str | None:
        """The declaration as the text of a system turn, None where it is none."""
        return None

    def decoder(
        self, tokenizer: Tokenizer, stop_tokens: Sequence[int], think: ThinkSyntax | None, *, tool_use: bool
    ) -> Decoder:
        """A fresh decoder; *think* None leaves reasoning in the text."""
        return BlockDecoder(tokenizer, stop_tokens, think, self.calls if tool_use else None)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def without_reasoning(text: str) -> str:
    """What follows the last closing reasoning marker, without the line ends after it."""
    _, marker, rest = text.rpartition(THINK[1])
    return rest.lstrip("\n") if marker else text
