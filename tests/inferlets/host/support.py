"""What the tests of the host share: programs of a few bytes, an outlet that notes what it gets, launches."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Literal

import wasmtime

from bakehouse.inferlets.base import Launch, Limits, Outcome, Outlet
from bakehouse.inferlets.dialogue import Dialogue, Frame

MANIFEST = '[package]\nname = "{name}"\nversion = "{version}"\n'

#: A component that answers at once, with a text of its own. It has no Python in it, and starts in no time.
_TEXT = """
(component
  (core module $m
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (data (i32.const 16) "{text}")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "run") (param i32 i32) (result i32)
      {body}
      (i32.store (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (i32.const 16))
      (i32.store (i32.const 8) (i32.const {length}))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (param "arguments" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (instance $exports (export "run" (func $run)))
  (export "pie:core/run@0.2.0" (instance $exports)))
"""


def small(text: str, *, body: str = "") -> bytes:
    """A program whose result is *text*, after the instructions of *body*."""
    return bytes(wasmtime.wat2wasm(_TEXT.format(text=text, length=len(text), body=body)))


#: One that computes until it is stopped.
SPINNING = "(loop $again (br $again))"


def manifest(name: str, version: str = "1.0.0", more: str = "") -> str:
    return MANIFEST.format(name=name, version=version) + more


_numbers = itertools.count(1)


def launch(program: str, *arguments: str, owner: str = "ada", limits: Limits | None = None) -> Launch:
    return Launch(
        id=f"i{next(_numbers)}",
        owner=owner,
        username=owner,
        program=program,
        arguments=arguments,
        limits=limits or Limits(),
    )


class Seen(Outlet):
    """Notes what an instance gives, and lets tests wait for it."""

    def __init__(self) -> None:
        self.given: list[tuple[str, object]] = []
        self.ends: list[Outcome] = []
        self._news = threading.Condition()

    def message(self, text: str) -> None:
        self._note("message", text)

    def file(self, data: bytes) -> None:
        self._note("file", data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._note(stream, text)

    def ended(self, outcome: Outcome) -> None:
        with self._news:
            self.ends.append(outcome)
            self._news.notify_all()

    def _note(self, kind: str, value: object) -> None:
        with self._news:
            self.given.append((kind, value))
            self._news.notify_all()

    def wait_for(self, kind: str, count: int = 1) -> list[object]:
        """What came of *kind*, once there are *count* of it."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.of(kind)) >= count, 30), f"got only {self.given}"
            return self.of(kind)

    def of(self, kind: str) -> list[object]:
        return [value for which, value in self.given if which == kind]


class Failing(Outlet):
    """Raises whatever it is told."""

    def __init__(self) -> None:
        self.told = 0

    def message(self, text: str) -> None:
        self._fail()

    def file(self, data: bytes) -> None:
        self._fail()

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._fail()

    def ended(self, outcome: Outcome) -> None:
        self._fail()

    def _fail(self) -> None:
        self.told += 1
        raise RuntimeError("an outlet that fails")


async def taken(dialogue: Dialogue) -> list[Frame]:
    """The next frames for its client, as soon as there are some."""
    news = asyncio.Event()
    dialogue.listen(news.set)
    while not (frames := dialogue.take()):
        await news.wait()
        news.clear()
    return frames
