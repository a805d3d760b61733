"""Messages between programs, the client, and what a program may know of where it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bakehouse.inferlets.calls.packing import pack_file
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.base import PARSER, Future, blob, drop_future, pollable, said
from bakehouse.inferlets.sandbox.running import Running


class Subscription(Future):
    """A stream: what is taken from it does not end it."""

    def get(self, running: Running) -> str | None:
        wait = self.waiting.wait
        if wait is None or not self.waiting.ready(running):
            return None
        message: str | None = running.calls.waits.take(wait)
        return message


def _push(running: Running, topic: str, message: str) -> None:
    running.calls.messaging.push(topic, message)


def _pull(running: Running, topic: str) -> Future:
    return Future(running.calls.messaging.pull(topic))


def _broadcast(running: Running, topic: str, message: str) -> None:
    running.calls.messaging.broadcast(topic, message)


def _subscribe(running: Running, topic: str) -> Subscription:
    return Subscription(running.calls.messaging.subscribe(topic))


def _send(running: Running, message: str) -> None:
    running.calls.client.send(message)


def _send_file(running: Running, data: bytes) -> None:
    running.calls.client.send_file(pack_file(data))


def _spawn(running: Running, program: str, arguments: list[str]) -> Future:
    return Future(running.calls.runtime.spawn(program, json.dumps(arguments)))


_MESSAGING: dict[str, Callable[..., Any]] = {
    "[method]subscription.pollable(borrow<subscription>) -> own<pollable>": pollable,
    "[method]subscription.get(borrow<subscription>) -> option<string>": lambda running, found: found.get(running),
    "[method]subscription.unsubscribe(borrow<subscription>)": drop_future,
    "push(string, string)": _push,
    "pull(string) -> own<future-string>": _pull,
    "broadcast(string, string)": _broadcast,
    "subscribe(string) -> own<subscription>": _subscribe,
}
_SESSION: dict[str, Callable[..., Any]] = {
    "send(string)": _send,
    "receive() -> own<future-string>": lambda running: Future(running.calls.client.receive()),
    "send-file(list<u8>)": _send_file,
    "receive-file() -> own<future-blob>": lambda running: Future(running.calls.client.receive_file(), blob),
}
_RUNTIME: dict[str, Callable[..., Any]] = {
    "version() -> string": lambda running: running.calls.runtime.version(),
    "instance-id() -> string": lambda running: running.calls.runtime.instance_id(),
    "username() -> string": lambda running: running.calls.runtime.username(),
    "models() -> list<string>": lambda running: json.loads(running.calls.models.names()),
    "spawn(string, list<string>) -> result<own<future-string>, error>": _spawn,
}


def interfaces() -> Iterator[Interface]:
    yield Interface("pie:core/messaging@0.2.0", said, PARSER, _MESSAGING, {"subscription": drop_future})
    yield Interface("pie:core/session@0.2.0", said, PARSER, _SESSION)
    yield Interface("pie:core/runtime@0.2.0", said, PARSER, _RUNTIME)
