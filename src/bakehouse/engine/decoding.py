"""A decoder with the choice of a caller: with the text, or without it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from bakehouse.engine.chat.base import Decoder
from bakehouse.engine.params import Event, Text


class EventDecoder:
    """*decoder*, whose `Text` events are left out where *text* is false. ``guard`` is for whoever shares it."""

    def __init__(self, decoder: Decoder, text: bool = True) -> None:
        self._decoder = decoder
        self._text = text
        self.guard = Lock()

    def feed(self, tokens: Sequence[int]) -> list[Event]:
        return self._chosen(self._decoder.feed(tokens)) if tokens else []

    def finish(self) -> list[Event]:
        return self._chosen(self._decoder.finish())

    def reset(self) -> None:
        self._decoder.reset()

    def _chosen(self, events: list[Event]) -> list[Event]:
        return events if self._text else [event for event in events if not isinstance(event, Text)]
