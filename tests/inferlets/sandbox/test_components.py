"""Components that no tool of ours made: what they do to the border itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import wasmtime

from bakehouse.inferlets.base import Failure
from tests.inferlets.sandbox.conftest import Neighbour
from tests.inferlets.sandbox.support import Ran, Runner

Harm = Callable[..., Ran]


@pytest.fixture
def raw(guests: Runner) -> Harm:
    """Run a component given as text; its program is the module ``$m``, which exports ``run``."""

    def run(text: str, **limits: float) -> Ran:
        wasm = bytes(wasmtime.wat2wasm(f"(component {text} {_RUN})"))
        other = Runner(guests.sandbox, guests.sandbox.compile(wasm), guests.engine)
        return other.run("", **limits)

    return run


_RUN = """
  (func $run (param "arguments" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $base "m")) (realloc (core func $base "realloc"))))
  (instance $e (export "run" (func $run)))
  (export "pie:core/run@0.2.0" (instance $e))
"""
_BASE = """
  (core module $b (memory (export "m") {pages})
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $base (instantiate $b))
"""
_MODULE = """
  (core module $m {imports} {parts} (func (export "run") (param i32 i32) (result i32) {body} (i32.const 0)))
  (core instance $i (instantiate $m {given}))
"""


def plain(body: str = "", parts: str = "", pages: int = 1) -> str:
    return _BASE.format(pages=pages) + _MODULE.format(imports="", parts=parts, body=body, given="")


def sending(size: int, pages: int) -> str:
    """Sends a text of *size* bytes to its client; answers whether that failed."""
    interface = """
      (type $failure' (record (field "code" string) (field "message" string)))
      (import "bakehouse:inferlet/types@1.0.0" (instance $t (export "failure" (type (eq $failure')))))
      (alias export $t "failure" (type $failure))
      (import "bakehouse:inferlet/client@1.0.0" (instance $c
        (alias outer 1 $failure (type $f'))
        (export "failure" (type $f (eq $f')))
        (export "send" (func (param "text" string) (result (result (error $f)))))))
    """
    lowered = """
      (core func $send (canon lower (func $c "send") (memory (core memory $base "m"))
        (realloc (core func $base "realloc"))))
    """
    module = _MODULE.format(
        imports='(import "host" "send" (func $send (param i32 i32 i32)))',
        parts='(import "host" "m" (memory 1))',
        body=f"(call $send (i32.const 0) (i32.const {size}) (i32.const 64))"
        "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 96))"
        "(i32.store (i32.const 96) (i32.add (i32.load8_u (i32.const 64)) (i32.const 48)))"
        "(i32.store (i32.const 8) (i32.const 1))",
        given='(with "host" (instance (export "send" (func $send)) (export "m" (memory $base "m"))))',
    )
    return interface + _BASE.format(pages=pages) + lowered + module


def test_one_that_never_starts(raw: Harm, neighbour: Neighbour) -> None:
    with neighbour():
        ran = raw(plain(parts="(func $spin (loop $again (br $again))) (start $spin)"), cpu=0.2)
    assert ran.limit == "cpu"


def test_one_that_traps(raw: Harm) -> None:
    failure = raw(plain("unreachable")).outcome.failure
    assert failure == Failure("crashed", "wasm trap: wasm `unreachable` instruction executed")


def test_one_that_wants_more_memory_than_it_may(raw: Harm) -> None:
    assert raw(plain(pages=65536)).limit == "memory"


def test_one_with_a_memory_too_many(raw: Harm) -> None:
    """The limit is one of a memory, so there is one of them."""
    assert "memory count" in raw(plain(parts="(memory 1)")).error


def test_one_with_a_table_without_end(raw: Harm) -> None:
    ran = raw(plain(parts="(table 10000000 funcref)"))
    assert ran.outcome.failure is not None
    assert "table" in ran.error


def test_one_that_recurses_for_ever(raw: Harm, neighbour: Neighbour) -> None:
    with neighbour():
        ran = raw(plain("(call $dig)", parts="(func $dig (call $dig))"))
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code == "stack_overflow"


@pytest.mark.parametrize(("size", "failed"), [(1000, "0"), (5 << 20, "1")])
def test_a_text_that_is_too_long_is_refused(raw: Harm, size: int, failed: str) -> None:
    """Before it is looked at."""
    assert raw(sending(size, 200), message=1 << 20, file=1 << 20).result == failed


def test_a_text_as_large_as_memory(raw: Harm, neighbour: Neighbour) -> None:
    with neighbour():
        ran = raw(sending(200 << 20, 3500))
    assert ran.outcome.failure is not None
    assert "too much data" in ran.error


def test_a_text_out_of_memory(raw: Harm, neighbour: Neighbour) -> None:
    with neighbour():
        ran = raw(sending(100 << 20, 10))
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code == "crashed"


def test_a_resource_of_another_type(raw: Harm, neighbour: Neighbour) -> None:
    """It says that what a chat is about is a grammar, and passes one."""
    interfaces = """
      (import "pie:core/inference@0.2.0" (instance $inference
        (export "grammar" (type $g (sub resource)))
        (export "[static]grammar.json" (func (result (own $g))))))
      (alias export $inference "grammar" (type $grammar))
      (import "pie:instruct/chat@0.2.0" (instance $chat
        (alias outer 1 $grammar (type $c'))
        (export "context" (type $c (eq $c')))
        (export "cue" (func (param "context" (borrow $c))))))
      (core func $json (canon lower (func $inference "[static]grammar.json")))
      (core func $cue (canon lower (func $chat "cue")))
    """
    module = _MODULE.format(
        imports='(import "host" "json" (func $json (result i32))) (import "host" "cue" (func $cue (param i32)))',
        parts="",
        body="(call $cue (call $json))",
        given='(with "host" (instance (export "json" (func $json)) (export "cue" (func $cue))))',
    )
    with neighbour():
        ran = raw(interfaces + _BASE.format(pages=1) + module)
    assert ran.outcome.failure == Failure("crashed", "what it passed to the host: a resource of another type")
