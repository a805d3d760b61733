"""What all interfaces of Pie stand on: names of types, futures, packed forms."""

from __future__ import annotations

import binascii
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.errors import InferletError
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pollables import Waiting
from bakehouse.inferlets.sandbox.running import Running
from bakehouse.inferlets.sandbox.types import Parser

NAMES = {
    "error": "string",
    "mcp-error": "record {code: s32, message: string, data: option<string>}",
    "image": "record {mime-type: string, data: list<u8>}",
    "embedded": "record {uri: string, mime-type: option<string>, text: option<string>, blob: option<list<u8>>}",
    "content": "variant {text: string, image: image, embedded-resource: embedded}",
    "sampler": (
        "variant {multinomial: tuple<f32, u32>, top-k: tuple<f32, u32>, top-p: tuple<f32, f32>, "
        "min-p: tuple<f32, f32>, top-k-top-p: tuple<f32, u32, f32>, embedding, dist: tuple<f32, u32>}"
    ),
    "output": (
        "variant {none, tokens: list<u32>, tokens-with-speculation: tuple<list<u32>, list<u32>, list<u32>>, "
        "embeddings: list<list<u8>>, distributions: list<tuple<list<u32>, list<f32>>>}"
    ),
    "chat-event": "variant {delta: string, interrupt: u32, done: string}",
    "reasoning-event": "variant {start, delta: string, complete: string}",
    "tool-event": "variant {idle, start, call: tuple<string, string>}",
}
PARSER = Parser(NAMES)


def said(error: Exception) -> str | None:
    """What a guest is told of *error*; None for what is no answer to a guest."""
    return error.detail if isinstance(error, EngineError | InferletError) else None


class Held:
    """Room of its instance that a thing takes, because the host keeps something for it behind a handle."""

    def __init__(self) -> None:
        self._size = 0

    def more(self, running: Running, size: int) -> None:
        """*size* bytes more. Raises `Refused`."""
        running.guest.room.take(size)
        self._size += size

    def nothing(self, running: Running) -> None:
        """All of it is gone."""
        size, self._size = self._size, 0
        running.guest.room.give(size)


class Future:
    """A result that will be there. *read* makes a value of the wait's text, of *weight* bytes for each character."""

    def __init__(self, wait: int, read: Callable[[str], Any] = str, weight: int = 1) -> None:
        self.waiting = Waiting(wait)
        self.held = Held()
        self._read, self._weight = read, weight
        self._value: Any = None

    def get(self, running: Running) -> Any:
        """None until it is there. What went wrong ends the guest: there is no other way to say it."""
        wait = self.waiting.wait
        if wait is not None and self.waiting.ready(running):
            self.waiting.wait = None
            text = taken(running, wait)
            self.held.more(running, self._weight * len(text))
            self._value = self._read(text)
        return self._value


class Known(Future):
    """A future whose value is there from the start."""

    def __init__(self, value: Any) -> None:
        super().__init__(0)
        self.waiting.wait = None
        self._value = value


def pollable(_: Running, future: Future) -> Waiting:
    return future.waiting


def get(running: Running, future: Future) -> Any:
    return future.get(running)


def drop_future(running: Running, future: Future) -> None:
    """What polls it finds it ready from now on."""
    wait, future.waiting.wait = future.waiting.wait, None
    future.held.nothing(running)
    if wait is not None:
        running.calls.waits.drop(wait)


def drop_nothing(running: Running, thing: Any) -> None:
    """It holds nothing that somebody else could use."""


def taken(running: Running, wait: int) -> str:
    """The result of *wait*, waited for."""
    return running.calls.waits.take(wait) or ""


def letting_go(function: Callable[[Running, Any], None]) -> Callable[[Running, Any], None]:
    """For `drop`: that the thing is gone already, which is as good, must not end the guest."""

    def drop(running: Running, thing: Any) -> None:
        with suppress(EngineError, InferletError):
            function(running, thing)

    return drop


def futures() -> Iterator[Interface]:
    kinds = {"future-bool": "bool", "future-string": "string", "future-blob": "list<u8>"}
    table: dict[str, Callable[..., Any]] = {}
    for name, kind in kinds.items():
        table[f"[method]{name}.pollable(borrow<{name}>) -> own<pollable>"] = pollable
        table[f"[method]{name}.get(borrow<{name}>) -> option<{kind}>"] = get
    yield Interface("pie:core/types@0.2.0", said, PARSER, table, dict.fromkeys(kinds, drop_future))


# Packed forms: see the WIT file of ours.


def packed(numbers: Iterable[int]) -> str:
    return array("I", numbers).tobytes().decode("latin-1")


def unpacked(text: str) -> list[int]:
    return array("I", text.encode("latin-1")).tolist()


def blob(text: str) -> bytes:
    return binascii.a2b_base64(text)
