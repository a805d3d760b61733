"""Tokens to events, by hand, as a generation does it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable

from inferlet._host import Host
from inferlet._packing import pack_ids
from inferlet.events import AnyEvent, Event, parse_events
from inferlet.model import Model


class Decoder:
    """The machine behind the events of `Context.generate`, for any ids of *model*.

    Ids can complete several events at once, or none. `feed` gives one and keeps the others, in order, for the next
    calls; `feed_all` gives all there are. What may still become part of a character or a marker is held back.
    """

    def __init__(self, model: Model, *, reasoning: bool = False, tool_use: bool = False) -> None:
        self._host: Host = model._host
        self._handle = self._host.decoders.create(model._handle, reasoning, tool_use)
        self._stops = frozenset(model.stop_tokens)
        self._kept: deque[AnyEvent] = deque()

    def feed(self, ids: Iterable[int]) -> AnyEvent:
        """The oldest event that was not given yet; an empty `Event.Text` where there is none.

        A stop id ends the text: `Event.Done` follows, and what comes after it is a new one.
        """
        self._kept += self._events(list(ids))
        return self._kept.popleft() if self._kept else Event.Text("")

    def feed_all(self, ids: Iterable[int]) -> list[AnyEvent]:
        """Every event that was not given yet, oldest first."""
        self._kept += self._events(list(ids))
        found = list(self._kept)
        self._kept.clear()
        return found

    def finish(self) -> list[AnyEvent]:
        """Every event that was not given yet, what was held back, and `Event.Done`; then it is at its start again."""
        self._kept += parse_events(self._host.decoders.finish(self._handle))
        return self.feed_all([])

    @property
    def pending(self) -> int:
        """Events that `feed` would give without any new ids."""
        return len(self._kept)

    def reset(self) -> None:
        """Back to the start; events that were not given yet are dropped."""
        self._kept.clear()
        self._host.decoders.reset(self._handle)

    def _events(self, ids: list[int]) -> list[AnyEvent]:
        found: list[AnyEvent] = []
        begin = 0
        for at, token in enumerate(ids):
            if token in self._stops:
                found += self._fed(ids[begin : at + 1])
                found += parse_events(self._host.decoders.finish(self._handle))
                begin = at + 1
        return found + self._fed(ids[begin:])

    def _fed(self, ids: list[int]) -> list[AnyEvent]:
        return parse_events(self._host.decoders.feed(self._handle, pack_ids(ids))) if ids else []

    def __del__(self) -> None:
        # Where the host is gone, or the constructor failed, there is nothing to give back.
        with contextlib.suppress(Exception):
            self._host.decoders.release(self._handle)
