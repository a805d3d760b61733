"""What WASI grants a program: clocks, randomness, standard output and error. No files, no network, no environment.

The functions are ours and not wasmtime's, so that a guest that sleeps can be ended, and so that what is not granted is
not even there. Whatever else a component imports of WASI ends it when it is called (`linking` sees to that).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.errors import Ended
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pollables import Pollable, Timer, poll
from bakehouse.inferlets.sandbox.running import Running, over
from bakehouse.inferlets.sandbox.screen import Stream
from bakehouse.inferlets.sandbox.types import Parser

_RANDOM = 1 << 20
_WRITE = 1 << 16
_NETWORK_ERRORS = (
    "unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict, "
    "not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use, "
    "remote-unreachable, connection-refused, connection-reset, connection-aborted, datagram-too-large, "
    "name-unresolvable, temporary-resolver-failure, permanent-resolver-failure"
)
PARSER = Parser(
    {
        "stream-error": "variant {last-operation-failed: own<error>, closed}",
        "datetime": "record {seconds: u64, nanoseconds: u32}",
        "network-error": f"enum {{{_NETWORK_ERRORS}}}",
        "ip-address-family": "enum {ipv4, ipv6}",
    }
)


class Refusal(Exception):
    """The error of a function's result. ``said`` is its value."""

    def __init__(self, said: Any) -> None:
        super().__init__(str(said))
        self.said = said


def said(error: Exception) -> Any:
    return error.said if isinstance(error, Refusal) else None


def interfaces() -> Iterator[Interface]:
    for name, table in _TABLES.items():
        resources = dict.fromkeys(_RESOURCES.get(name, ()), _drop)
        yield Interface(f"wasi:{name}@0.2.0", said, PARSER, table, resources)


def _drop(running: Running, thing: Any) -> None:
    """What a guest holds of WASI needs no goodbye."""


def _timer(_: Running, due: int) -> Timer:
    return Timer(due / 1e9)


def _now(_: Running) -> int:
    return time.monotonic_ns()


def _datetime(_: Running) -> tuple[int, int]:
    return divmod(time.time_ns(), 10**9)


def _random(running: Running, size: int) -> bytes:
    if size > _RANDOM:
        running.end(over("memory", f"{size} random bytes at one time; {_RANDOM} are allowed"))
        raise Ended("too many random bytes")
    return os.urandom(size)


def _random_number(_: Running) -> int:
    return int.from_bytes(os.urandom(8), "little")


def _write(running: Running, stream: Stream, data: bytes) -> None:
    if not running.screen.write(stream, data):
        raise Ended("too much output")


def _zeroes(running: Running, stream: Stream, size: int) -> None:
    _write(running, stream, bytes(min(size, _WRITE)))


def _exit(running: Running, status: tuple[bool, None]) -> None:
    running.exit(0 if status[0] else 1)


def _refuse(value: Any) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise Refusal(value)

    return call


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def _ready(running: Running, pollable: Pollable) -> bool:
    return pollable.ready(running)


def _block(running: Running, pollable: Pollable) -> None:
    poll(running, [pollable])


def _poll(running: Running, pollables: list[Pollable]) -> list[int]:
    if not pollables:
        running.end(Failure("crashed", "it polled nothing at all"))
        raise Ended("an empty poll")
    return poll(running, pollables)


_RESOURCES = {
    "io/error": ("error",),
    "io/poll": ("pollable",),
    "io/streams": ("input-stream", "output-stream"),
    "cli/terminal-input": ("terminal-input",),
    "cli/terminal-output": ("terminal-output",),
    "filesystem/types": ("descriptor", "directory-entry-stream"),
    "sockets/network": ("network",),
    "sockets/udp": ("udp-socket", "incoming-datagram-stream", "outgoing-datagram-stream"),
    "sockets/tcp": ("tcp-socket",),
    "sockets/ip-name-lookup": ("resolve-address-stream",),
}

_in, _out, _wrote = "borrow<input-stream>", "borrow<output-stream>", "result<_, stream-error>"
_bytes, _count = "result<list<u8>, stream-error>", "result<u64, stream-error>"

_TABLES: dict[str, dict[str, Callable[..., Any]]] = {
    "io/error": {"[method]error.to-debug-string(borrow<error>) -> string": _always("refused")},
    "io/poll": {
        "[method]pollable.ready(borrow<pollable>) -> bool": _ready,
        "[method]pollable.block(borrow<pollable>)": _block,
        "poll(list<borrow<pollable>>) -> list<u32>": _poll,
    },
    "io/streams": {
        f"[method]input-stream.read({_in}, u64) -> {_bytes}": _refuse("closed"),
        f"[method]input-stream.blocking-read({_in}, u64) -> {_bytes}": _refuse("closed"),
        f"[method]input-stream.skip({_in}, u64) -> {_count}": _refuse("closed"),
        f"[method]input-stream.blocking-skip({_in}, u64) -> {_count}": _refuse("closed"),
        f"[method]input-stream.subscribe({_in}) -> own<pollable>": lambda running, _: _timer(running, 0),
        f"[method]output-stream.check-write({_out}) -> {_count}": _always(_WRITE),
        f"[method]output-stream.write({_out}, list<u8>) -> {_wrote}": _write,
        f"[method]output-stream.blocking-write-and-flush({_out}, list<u8>) -> {_wrote}": _write,
        f"[method]output-stream.flush({_out}) -> {_wrote}": _always(None),
        f"[method]output-stream.blocking-flush({_out}) -> {_wrote}": _always(None),
        f"[method]output-stream.subscribe({_out}) -> own<pollable>": lambda running, _: _timer(running, 0),
        f"[method]output-stream.write-zeroes({_out}, u64) -> {_wrote}": _zeroes,
        f"[method]output-stream.blocking-write-zeroes-and-flush({_out}, u64) -> {_wrote}": _zeroes,
        f"[method]output-stream.splice({_out}, {_in}, u64) -> {_count}": _refuse("closed"),
        f"[method]output-stream.blocking-splice({_out}, {_in}, u64) -> {_count}": _refuse("closed"),
    },
    "cli/environment": {
        "get-environment() -> list<tuple<string, string>>": _always([]),
        "get-arguments() -> list<string>": _always([]),
        "initial-cwd() -> option<string>": _always(None),
    },
    "cli/exit": {"exit(result)": _exit},
    "cli/stdin": {"get-stdin() -> own<input-stream>": _always("stdin")},
    "cli/stdout": {"get-stdout() -> own<output-stream>": _always("stdout")},
    "cli/stderr": {"get-stderr() -> own<output-stream>": _always("stderr")},
    "cli/terminal-input": {},
    "cli/terminal-output": {},
    "cli/terminal-stdin": {"get-terminal-stdin() -> option<own<terminal-input>>": _always(None)},
    "cli/terminal-stdout": {"get-terminal-stdout() -> option<own<terminal-output>>": _always(None)},
    "cli/terminal-stderr": {"get-terminal-stderr() -> option<own<terminal-output>>": _always(None)},
    "clocks/monotonic-clock": {
        "now() -> u64": _now,
        "resolution() -> u64": _always(1),
        "subscribe-instant(u64) -> own<pollable>": _timer,
        "subscribe-duration(u64) -> own<pollable>": lambda running, span: _timer(running, _now(running) + span),
    },
    "clocks/wall-clock": {"now() -> datetime": _datetime, "resolution() -> datetime": _always((0, 1))},
    "random/random": {"get-random-bytes(u64) -> list<u8>": _random, "get-random-u64() -> u64": _random_number},
    "random/insecure": {
        "get-insecure-random-bytes(u64) -> list<u8>": _random,
        "get-insecure-random-u64() -> u64": _random_number,
    },
    "random/insecure-seed": {
        "insecure-seed() -> tuple<u64, u64>": lambda running: (_random_number(running), _random_number(running))
    },
    "filesystem/preopens": {"get-directories() -> list<tuple<own<descriptor>, string>>": _always([])},
    "filesystem/types": {},
    "sockets/network": {},
    "sockets/instance-network": {"instance-network() -> own<network>": _always("network")},
    "sockets/udp": {},
    "sockets/udp-create-socket": {
        "create-udp-socket(ip-address-family) -> result<own<udp-socket>, network-error>": _refuse("access-denied")
    },
    "sockets/tcp": {},
    "sockets/tcp-create-socket": {
        "create-tcp-socket(ip-address-family) -> result<own<tcp-socket>, network-error>": _refuse("access-denied")
    },
    "sockets/ip-name-lookup": {
        "resolve-addresses(borrow<network>, string) -> result<own<resolve-address-stream>, network-error>": _refuse(
            "access-denied"
        )
    },
}
