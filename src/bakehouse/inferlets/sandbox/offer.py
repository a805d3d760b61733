"""What the sandbox offers a program of ours: each function of ``wit/inferlet.wit`` and its type, bound to `Calls`.

The table says the same as the WIT file, which a test holds. It stands here once more because a program's own word on
the types of what it imports is not to be trusted: `linking` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.errors import InferletError
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.running import Running
from bakehouse.inferlets.sandbox.types import Parser

PACKAGE = "bakehouse:inferlet/{}@1.0.0"
EXPORT, FUNCTION = "pie:core/run@0.2.0", "run"
PARSER = Parser({"failure": "record {code: string, message: string}"})

_done, _number, _text = "result<_, failure>", "result<u32, failure>", "result<string, failure>"
_maybe = "result<option<u32>, failure>"

FUNCTIONS = {
    "waits": {
        "take": "(u32) -> result<option<string>, failure>",
        "any": f"(string, f64) -> {_text}",
        "drop": "(u32)",
    },
    "models": {
        "names": "() -> string",
        "load": f"(string) -> {_number}",
        "info": f"(u32) -> {_text}",
        "encode": f"(u32, string) -> {_text}",
        "decode": f"(u32, string) -> {_text}",
        "vocabulary": f"(u32) -> {_text}",
        "special-tokens": f"(u32) -> {_text}",
        "split-regex": f"(u32) -> {_text}",
    },
    "contexts": {
        "create": f"(u32, option<string>) -> {_number}",
        "lookup": f"(u32, string) -> {_maybe}",
        "fork": f"(u32, option<string>) -> {_number}",
        "release": f"(u32) -> {_done}",
        "state": f"(u32) -> {_text}",
        "append": f"(u32, string) -> {_done}",
        "set-buffer": f"(u32, string) -> {_done}",
        "set-cursor": f"(u32, u32) -> {_done}",
        "reserve-pages": f"(u32, u32) -> {_done}",
        "release-pages": f"(u32, u32) -> {_done}",
        "commit-pages": f"(u32, string) -> {_done}",
        "say": f"(u32, string, string) -> {_done}",
        "cue": f"(u32) -> {_done}",
        "seal": f"(u32) -> {_done}",
        "equip-tools": f"(u32, string) -> {_done}",
        "answer-tool": f"(u32, string, string) -> {_done}",
    },
    "passes": {
        "flush": f"(u32) -> {_number}",
        "forward": f"(u32, string) -> {_number}",
        "generate": f"(u32, string) -> {_number}",
        "whole": f"(u32) -> {_done}",
    },
    "grammars": {
        "create": f"(u32, string, string) -> {_number}",
        "create-for-tools": f"(u32, string) -> {_number}",
        "accept": f"(u32, string) -> {_done}",
        "terminated": "(u32) -> result<bool, failure>",
        "reset": f"(u32) -> {_done}",
        "release": f"(u32) -> {_done}",
        "next-mask": f"(u32) -> {_number}",
        "create-mask": f"(string) -> {_number}",
        "read-mask": f"(u32) -> {_text}",
        "release-mask": f"(u32) -> {_done}",
    },
    "decoders": {
        "create": f"(u32, bool, bool) -> {_number}",
        "feed": f"(u32, string) -> {_text}",
        "finish": f"(u32) -> {_text}",
        "reset": f"(u32) -> {_done}",
        "release": f"(u32) -> {_done}",
    },
    "adapters": {
        "create": f"(u32, string) -> {_number}",
        "lookup": f"(u32, string) -> {_maybe}",
        "clone": f"(u32, string) -> {_number}",
        "remove": f"(u32) -> {_number}",
        "lock": "(u32) -> result<bool, failure>",
        "unlock": f"(u32) -> {_done}",
        "load": f"(u32, string) -> {_number}",
        "save": f"(u32, string) -> {_number}",
        "zo-initialize": f"(u32, string) -> {_number}",
        "zo-update": f"(u32, string) -> {_number}",
    },
    "client": {
        "send": f"(string) -> {_done}",
        "receive": f"() -> {_number}",
        "send-file": f"(string) -> {_done}",
        "receive-file": f"() -> {_number}",
    },
    "runtime": {
        "version": "() -> string",
        "instance-id": "() -> string",
        "username": "() -> string",
        "limits": "() -> string",
        "spawn": f"(string, string) -> {_number}",
    },
    "messaging": {
        "push": f"(string, string) -> {_done}",
        "pull": f"(string) -> {_number}",
        "broadcast": f"(string, string) -> {_done}",
        "subscribe": f"(string) -> {_number}",
    },
    "mcp": {
        "servers": f"() -> {_text}",
        "connect": f"(string) -> {_number}",
        "request": f"(u32, string, string) -> {_number}",
        "close": f"(u32) -> {_done}",
    },
}


def said(error: Exception) -> tuple[str, str] | None:
    """What a guest is told of *error*: code and text; None for what is no answer to a guest."""
    return (error.code, error.detail) if isinstance(error, EngineError | InferletError) else None


def interfaces() -> Iterator[Interface]:
    for name, functions in FUNCTIONS.items():
        table = {function + types: _bound(name, function.replace("-", "_")) for function, types in functions.items()}
        yield Interface(PACKAGE.format(name), said, PARSER, table)
    # Of the program itself, not of what its instance may call.
    own = {"payload() -> string": attrgetter("payload")}
    yield Interface(PACKAGE.format("program"), said, PARSER, own)


def _bound(interface: str, function: str) -> Any:
    method = attrgetter(f"{interface}.{function}")

    def call(running: Running, *arguments: Any) -> Any:
        return method(running.calls)(*arguments)

    return call
