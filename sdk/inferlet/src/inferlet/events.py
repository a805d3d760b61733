"""What a decoder finds in generated tokens. Every event is a dataclass; match them by their fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Event:
    """The kinds of events, under one name: ``case Event.Text(text=t)``."""

    @dataclass(frozen=True)
    class Text:
        """A piece of visible text. Characters are never broken."""

        text: str

    @dataclass(frozen=True)
    class Thinking:
        """A piece of reasoning; the first one of a reasoning part is empty."""

        text: str

    @dataclass(frozen=True)
    class ThinkingDone:
        """The reasoning part is over; this is its whole text."""

        text: str

    @dataclass(frozen=True)
    class ToolCallStart:
        """A tool call has begun. Comes once per call."""

    @dataclass(frozen=True)
    class ToolCall:
        """A whole call; ``arguments`` is JSON text."""

        name: str
        arguments: str

    @dataclass(frozen=True)
    class Done:
        """The generation is over; the text is that of all `Event.Text` together. Comes once, last."""

        text: str


AnyEvent = Event.Text | Event.Thinking | Event.ThinkingDone | Event.ToolCallStart | Event.ToolCall | Event.Done

_KINDS: dict[str, Callable[..., AnyEvent]] = {
    "text": Event.Text,
    "thinking": Event.Thinking,
    "thinking_done": Event.ThinkingDone,
    "tool_call_start": Event.ToolCallStart,
    "tool_call": Event.ToolCall,
    "done": Event.Done,
}


def events_of(rows: list[list[Any]]) -> list[AnyEvent]:
    """From the form in which a host gives them: a list of lists, the kind first."""
    return [_KINDS[kind](*fields) for kind, *fields in rows]


def parse_events(text: str) -> list[AnyEvent]:
    """The same, as JSON."""
    return events_of(json.loads(text))
