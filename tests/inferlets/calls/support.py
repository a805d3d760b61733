"""What the tests of calls share: an outlet that keeps what it gets, services of this process, and short words."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from bakehouse.inferlets.base import Launch, McpServers, Messaging, Outcome
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids, unpack_ids
from bakehouse.inferlets.errors import NoSuchProgram

DEADLINE_S = 20.0

#: ``make(limits=..., owner=...)``: a guest, closed when the test is over.
Make = Callable[..., Guest]


@dataclass
class Kept:
    messages: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def file(self, data: bytes) -> None:
        self.files.append(data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        raise AssertionError("no call of a guest prints")

    def ended(self, outcome: Outcome) -> None:
        raise AssertionError("its host tells the end, no call does")


@dataclass
class Here:
    """Services of this process. Children are futures that a test completes."""

    messaging: Messaging
    mcp: McpServers
    spawned: list[tuple[Launch, str, tuple[str, ...], Future[str]]] = field(default_factory=list)

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        if program == "nobody@1.0.0":
            raise NoSuchProgram(f"{program} is not installed")
        child: Future[str] = Future()
        self.spawned.append((parent, program, arguments, child))
        return child


def model(guest: Guest) -> int:
    return guest.calls.models.load("dummy")


def context(guest: Guest, text: str = "Once upon a time") -> int:
    """A context with *text* in its buffer."""
    made = guest.calls.contexts.create(model(guest), None)
    guest.calls.contexts.append(made, encoded(guest, text))
    return made


def encoded(guest: Guest, text: str) -> str:
    return guest.calls.models.encode(model(guest), text)


def state(guest: Guest, which: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.calls.contexts.state(which))
    return found


def start(guest: Guest, which: int, **request: Any) -> int:
    """A generation, greedy and without a stop token unless *request* says otherwise."""
    asked = {"sampler": {"temperature": 0}, "stop": {"tokens": []}, **request}
    return guest.calls.passes.generate(which, json.dumps(asked))


def items(guest: Guest, wait: int) -> list[dict[str, Any]]:
    found = []
    while (item := guest.calls.waits.take(wait)) is not None:
        found.append(json.loads(item))
    return found


def generated(guest: Guest, which: int, **request: Any) -> list[int]:
    return [token for item in items(guest, start(guest, which, **request)) for token in item["tokens"]]


def forward(guest: Guest, **request: Any) -> tuple[dict[str, Any], bytes]:
    """The line of JSON, and what is packed behind it."""
    taken = guest.calls.waits.take(guest.calls.passes.forward(model(guest), json.dumps(request)))
    assert taken is not None
    line, _, bulk = taken.partition("\n")
    return json.loads(line), bulk.encode("latin-1")


def taken(guest: Guest, wait: int) -> str:
    found = guest.calls.waits.take(wait)
    assert found is not None
    return found


def ready(guest: Guest, waits: Iterable[int], seconds: float = 0.0) -> list[int]:
    return list(unpack_ids(guest.calls.waits.any(pack_ids(waits), seconds)))


class Aside:
    """*function* on a thread of its own; `result` gives what it returned, or raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._function())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> Any:
        return self._future.result(DEADLINE_S)

    @property
    def done(self) -> bool:
        return self._future.done()
