"""The contract of chat formats: turns become ids, generated ids become events.

A format knows one family of models. It is immutable and shared by all contexts; what it must remember of a context (is
it empty, is a system text held back, which turns came) is a `Transcript`, an immutable value that a fork simply shares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bakehouse.engine.params import Event


@dataclass(frozen=True, slots=True)
class Turn:
    """``role``: system, user, assistant, tool, tools (a declaration) or cue.

    ``text`` of a declaration is a JSON list of functions, as `chat.tools.declaration` makes it. ``name`` is a tool's.
    """

    role: str
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Transcript:
    """``turns`` in order; ``held`` is text that waits for the next turn; ``plain`` once raw tokens came between.

    ``tail``: ids that were generated, filled or sealed since the last turn, as far as `wrote` keeps them.
    ``started``: a turn has given ids, so the context is not empty.
    """

    turns: tuple[Turn, ...] = ()
    held: str = ""
    plain: bool = False
    tail: tuple[int, ...] = ()
    started: bool = False

    def wrote(self, tokens: Sequence[int]) -> Transcript:
        """This one after raw ids came: generated, filled, or the end of a turn by `seal`.

        What comes after a cue is the assistant's turn, so that a later turn can follow as the template has it. Of other
        ids it matters only that they came, and which was the last.
        """
        if not tokens:
            return self
        words = not self.plain and bool(self.turns) and self.turns[-1].role == "cue"
        return replace(self, tail=self.tail + tuple(tokens) if words else tuple(tokens[-1:]))

    def cut(self) -> Transcript:
        """This one when tokens were taken away: which turns are left is not known, and need not be kept."""
        return replace(self, turns=(), plain=True)


EMPTY = Transcript()


class ChatFormat(ABC):
    #: The family, as in `ModelInfo.family`: qwen3, qwen2, llama3, llama2, mistral3, gemma, olmo3, r1, gpt_oss, chatml.
    family: str
    #: Every id that ends a generation.
    stop_tokens: tuple[int, ...]
    #: The id that ends a turn, which `seal` writes.
    turn_end: int

    @abstractmethod
    def add(self, transcript: Transcript, turn: Turn) -> tuple[list[int], Transcript]:
        """The ids that *turn* appends after *transcript*, and the transcript then.

        Raises `BadRequest` for a role or a tool declaration that the family cannot express.
        """

    @abstractmethod
    def decoder(self, *, reasoning: bool = False, tool_use: bool = False) -> Decoder:
        """A fresh decoder of generated ids."""


class Decoder(ABC):
    """A machine from ids to events. It never breaks a character or a marker: what is incomplete is held back."""

    @abstractmethod
    def feed(self, tokens: Sequence[int]) -> list[Event]:
        """The events that *tokens* complete, in order; stop ids among them add no text."""

    @abstractmethod
    def finish(self) -> list[Event]:
        """What was held back, then exactly one `Done` whose text is all `Text` joined."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the start."""
