"""Compiling: what is refused and why, and what is compiled once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.sandbox import Sandbox
from bakehouse.inferlets.sandbox import cache as caching
from tests.inferlets.host.support import small


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path / "cache")
    yield made
    made.close()


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (b"", "no WebAssembly"),
        (b"PK\3\4 a zip", "no WebAssembly"),
        (b"\0asm\x01\0\0\0", "no component"),
        (b"\0asm\x0d\0\x01\0 and then rubbish", "no valid WebAssembly component"),
        (wat("(component)"), "exports no pie:core/run"),
    ],
)
def test_what_is_no_program(box: Sandbox, wasm: bytes, says: str) -> None:
    with pytest.raises(BadProgram, match=says):
        box.compile(wasm)


RUN = """
  (core module $m (memory (export "m") 1) (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
    (func (export "run") (param i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (param "a" {parameter}) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "m")) (realloc (core func $i "realloc"))))
  (instance $e (export "run" (func $run)))
  (export "pie:core/run@0.2.0" (instance $e))
"""


def importing(text: str) -> bytes:
    return wat(f"(component {text} {RUN.format(parameter='(list string)')})")


def importing_function(interface: str, name: str, kind: str) -> bytes:
    return importing(f'(import "{interface}" (instance (export "{name}" (func {kind}))))')


@pytest.mark.parametrize(
    ("wasm", "names"),
    [
        (importing('(import "print" (func))'), "print"),
        (importing_function("acme:disk/files@1.0.0", "read", ""), "acme:disk/files@1.0.0#read"),
        (
            importing_function("wasi:http/outgoing-handler@0.2.0", "handle", ""),
            "wasi:http/outgoing-handler@0.2.0#handle",
        ),
        (importing_function("bakehouse:inferlet/waits@1.0.0", "peek", ""), "bakehouse:inferlet/waits@1.0.0#peek"),
        (importing_function("bakehouse:inferlet/waits@2.0.0", "drop", ""), "bakehouse:inferlet/waits@2.0.0#drop"),
        (
            importing_function("bakehouse:inferlet/waits@1.0.0", "drop", '(param "wait" u64)'),
            r"as \(u64\); here it is \(u32\)",
        ),
        (importing_function("wasi:random/random@0.2.0", "get-random-u64", "(result string)"), "as .* -> string; here"),
        (wat(f"(component {RUN.format(parameter='string')})"), "exports no pie:core/run"),
    ],
)
def test_imports_and_exports_that_do_not_fit(box: Sandbox, wasm: bytes, names: str) -> None:
    with pytest.raises(BadProgram, match=names) as caught:
        box.compile(wasm)
    assert caught.value.field


def test_what_wasi_does_not_grant_may_be_imported_and_not_called(box: Sandbox) -> None:
    box.compile(importing_function("wasi:sockets/udp@0.2.3", "nothing", ""))


def test_a_file_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = count(monkeypatch)
    program = tmp_path / "program.wasm"
    program.write_bytes(small("one"))
    for _ in range(2):
        box = Sandbox(tmp_path / "cache")
        assert box.load(program) is box.compile(small("one"))
        box.close()
    assert compiled == [1]
    program.write_bytes(small("other"))
    box = Sandbox(tmp_path / "cache")
    assert box.load(program) is not box.compile(small("one"))
    box.close()
    assert compiled == [1, 1]


def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A 1 for each time that something is really compiled."""
    made: list[int] = []
    real = caching.compile_component
    monkeypatch.setattr(caching, "compile_component", lambda *given: made.append(1) or real(*given))
    return made


def test_threads_that_ask_at_the_same_time_wait_for_one(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = count(monkeypatch)
    found = []
    wasm = small("many")
    threads = [threading.Thread(target=lambda: found.append(box.compile(wasm))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled == [1]
    assert len({id(each) for each in found}) == 1


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-1] + b"!"])
def test_a_broken_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: object) -> None:
    compiled = count(monkeypatch)
    cache = tmp_path / "cache"
    for _ in range(2):
        box = Sandbox(cache)
        box.compile(small("one"))
        box.close()
        (code,) = cache.glob("*.code")
        code.write_bytes(harm(code.read_bytes()))  # type: ignore[operator]
    assert compiled == [1, 1]


def test_a_refused_program_leaves_no_file(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(BadProgram):
        box.compile(importing('(import "print" (func))'))
    assert not list((tmp_path / "cache").iterdir())


def test_others_must_not_write_there(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    with pytest.raises(PermissionError, match="machine code"):
        Sandbox(cache)
    cache.chmod(0o755)
    Sandbox(cache).close()
    assert cache.stat().st_mode & 0o777 == 0o700


def test_the_disk_keeps_what_was_used_last(tmp_path: Path) -> None:
    box = Sandbox(tmp_path / "cache")
    for at in range(5):
        box.compile(small(f"program {at}"))
        if at == 0:
            (first,) = (tmp_path / "cache").iterdir()
            box._cache._stored = int(first.stat().st_size * 3.5)
        if at < 3:
            os.utime(first, (at, at))
    box.close()
    assert len(list((tmp_path / "cache").iterdir())) == 3
    assert not first.exists()


def test_a_disk_without_room_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    box = Sandbox(tmp_path / "cache")
    assert box.compile(small("one")) is box.compile(small("one"))
    box.close()
    assert not list((tmp_path / "cache").iterdir())
