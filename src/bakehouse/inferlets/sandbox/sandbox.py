"""One runtime for all guests of a process. A guest runs on the thread that calls `Sandbox.run`."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmtime import WasmtimeError
from wasmtime import component as wasm

from bakehouse.inferlets.base import Failure, Outcome
from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.sandbox import ffi, offer, pie, wasi
from bakehouse.inferlets.sandbox.cache import Cache, Compiled
from bakehouse.inferlets.sandbox.engine import SETTINGS, engine_of_guests, store_of
from bakehouse.inferlets.sandbox.linking import Catalogue
from bakehouse.inferlets.sandbox.running import Output, Running, Ticker, over
from bakehouse.inferlets.sandbox.screen import Screen
from bakehouse.inferlets.sandbox.types import signature_of
from bakehouse.inferlets.sandbox.values import Converters, here

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest

#: What wasmtime says of a component whose memory is larger from the start than it may be.
_LEAST_MEMORY = re.compile(r"memory minimum size of (\d+) pages exceeds")
_PAGE = 1 << 16

_RUN = offer.PARSER.signature("(list<string>) -> result<string, string>")
_arguments_to = Converters().to_guest(_RUN.parameters[0])
_result_from = Converters().from_guest(_RUN.result or ())


class Sandbox:
    """Compiles programs, keeping what it compiled below *cache*, and runs them. Thread-safe."""

    def __init__(self, cache: Path) -> None:
        self._engine = engine_of_guests()
        interfaces = chain(offer.interfaces(), pie.interfaces(), wasi.interfaces())
        self._catalogue = Catalogue(self._engine, interfaces, partial=("wasi:",))
        self._cache = Cache(cache, self._engine, SETTINGS, self._link)
        self._ticker = Ticker(self._engine.increment_epoch)

    def compile(self, wasm: bytes) -> Compiled:
        """Takes seconds the first time. Raises `BadProgram`, which names the import or export that does not fit."""
        return self._cache.get(wasm)

    def load(self, path: Path) -> Compiled:
        """The same from a file. Raises OSError where there is none."""
        return self._cache.load(path)

    def run(self, program: Compiled, guest: Guest, output: Output) -> Outcome:
        """Run *program* to its end on this thread. Whatever the guest does becomes the outcome.

        *output* gets what it prints, a line at a time. The guest is not closed.
        """
        running = Running(guest, program.payload)
        running.screen = screen = Screen(running, output)
        here.running = running
        try:
            with self._ticker:
                outcome = self._run(program, running)
            screen.close()
        finally:
            running.close()
            del here.running
        return outcome if guest.failure is None else Outcome(failure=guest.failure)

    def close(self) -> None:
        """Stop. No guest may run any more."""
        self._ticker.close()
        self._cache.clear()

    def _link(self, component: wasm.Component) -> wasm.Linker:
        kind = component.type
        _check_export(kind, self._engine)
        return self._catalogue.linker(kind)

    def _run(self, program: Compiled, running: Running) -> Outcome:
        store = store_of(self._engine, running.limits)
        try:
            here.context = ffi.address(store._context())
            ffi.on_epoch(store, _tick)
            arguments = _arguments_to(running.guest.launch.arguments)
            instance = ffi.Instance(program.linker, store, program.component)
            good, text = instance.call(offer.EXPORT, offer.FUNCTION, [arguments], _result)
        except WasmtimeError as error:
            return _stopped(error, running)
        finally:
            store.close()
        return Outcome(text) if good else Outcome(failure=_raised(text, running))


def _result(_: int, a: int, b: int, c: int) -> Any:
    return _result_from(a, b, c)


def _check_export(kind: wasm.ComponentType, engine: Any) -> None:
    item = kind.exports(engine).get(offer.EXPORT)
    exported = item and item.ty
    found = exported.exports(engine).get(offer.FUNCTION) if isinstance(exported, wasm.ComponentInstanceType) else None
    function = found and found.ty
    if not isinstance(function, wasm.FuncType) or signature_of(function) != _RUN:
        raise BadProgram(f"it exports no {offer.EXPORT} with run{_RUN}", field=offer.EXPORT)


def _on_epoch(_: int, __: int, ticks: int, action: int) -> int:
    running = here.running
    try:
        if running.over_time():
            return ffi.failure("ended")
        ffi.go_on(ticks, action)
    except BaseException as error:
        return ffi.failure(running.crashed(error))
    return 0


_tick = ffi.EpochCallback(_on_epoch)


def _raised(text: str, running: Running) -> Failure:
    """The program ended with an error of its own. A `MemoryError` of another kind has a text."""
    traceback = running.screen.traceback()
    if text.rstrip(": ") == "MemoryError":
        return replace(_out_of_memory(running), traceback=traceback)
    return Failure("program_error", text, traceback=traceback)


def _stopped(error: WasmtimeError, running: Running) -> Outcome:
    """The sandbox stopped the program, or the program itself did."""
    if running.exited is not None:
        status = running.exited
        return Outcome() if status == 0 else Outcome(failure=Failure("exit", f"it exited with status {status}"))
    text = str(error)
    if (least := _LEAST_MEMORY.search(text)) is not None:
        needs = int(least[1]) * _PAGE
        return Outcome(failure=over("memory", f"{running.limits.memory} bytes; this program needs {needs} to start"))
    if b"MemoryError" in running.screen.last_errors or "exceeds memory limits" in text:
        return Outcome(failure=_out_of_memory(running))
    if "call stack exhausted" in text:
        return Outcome(failure=Failure("stack_overflow", "its calls are nested too deeply"))
    return Outcome(failure=Failure("crashed", _cause(text)))


def _cause(text: str) -> str:
    """One line of what wasmtime says: behind its backtrace, or the first one."""
    lines = [line.strip() for line in text.partition("Caused by:")[2].splitlines() if line.strip()]
    return (lines or text.splitlines() or [""])[0].removeprefix("0: ")


def _out_of_memory(running: Running) -> Failure:
    return over("memory", f"more than {running.limits.memory} bytes")
