"""Functions of ours as a component finds them: defined once in a linker that all stores share.

Which guest a call is of, its thread says (`values.here`). No exception leaves a callback: it would be lost in C.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wasmtime import Engine
from wasmtime import component as wasm

from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.sandbox import ffi
from bakehouse.inferlets.sandbox.types import Parser, Signature, same, signature_of
from bakehouse.inferlets.sandbox.values import Converters, here

#: A function of ours: the guest's `Running`, then what the guest passed.
Call = Callable[..., Any]
#: What a guest is told of an error, or None where it is to end.
Said = Callable[[Exception], Any]
#: Interface and function that are not here.
Missing = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Function:
    signature: Signature
    call: Call


@dataclass(frozen=True, slots=True)
class Resource:
    """``key`` names it in signatures, where names are one space; ``drop`` gets the thing that a guest let go."""

    key: str
    drop: Call


class Interface:
    """Functions and resources under one name. *said* makes errors of a function's result out of exceptions.

    *table* says what functions do, by name and signature: ``"take(u32) -> string"``. *resources* says by name what a
    guest's handles stand for, *keys* where a signature calls one otherwise.
    """

    def __init__(
        self,
        name: str,
        said: Said,
        parser: Parser,
        table: Mapping[str, Call],
        resources: Mapping[str, Call] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.said = name, said
        keys = keys or {}
        self.resources = {name: Resource(keys.get(name, name), drop) for name, drop in (resources or {}).items()}
        self.functions: dict[str, Function] = {}
        for text, call in table.items():
            function, types = text.split("(", 1)
            self.functions[function] = Function(parser.signature(f"({types}"), call)


class Catalogue:
    """All that a component may import. A linker is shared by all components that import the same.

    Of interfaces in the packages *partial* a component may import functions that are not here; to call one ends the
    guest.
    """

    def __init__(self, engine: Engine, interfaces: Iterable[Interface], partial: tuple[str, ...] = ()) -> None:
        self._engine, self._partial = engine, partial
        self._interfaces = {_compatible(each.name): each for each in interfaces}
        resources = [one for each in self._interfaces.values() for one in each.resources.values()]
        self._kinds = {resource.key: at for at, resource in enumerate(resources, 1)}
        converters = Converters(self._kinds)
        self._callbacks = {
            (interface.name, name): callback(function, interface.said, converters)
            for interface in self._interfaces.values()
            for name, function in interface.functions.items()
        }
        self._destructors = {resource.key: _destructor(resource.drop) for resource in resources}
        self._lock = threading.Lock()
        self._linkers: dict[frozenset[Missing], wasm.Linker] = {}
        self._denials: dict[Missing, Any] = {}

    def linker(self, component: wasm.ComponentType) -> wasm.Linker:
        """Raises `BadProgram` that names an import which is not here, or is of another type here."""
        missing = frozenset(self._missing(component))
        with self._lock:
            if missing not in self._linkers:
                self._linkers[missing] = self._make(missing)
            return self._linkers[missing]

    def _make(self, missing: frozenset[Missing]) -> wasm.Linker:
        linker = wasm.Linker(self._engine)
        with ffi.Part.root(linker) as root:
            for key, interface in self._interfaces.items():
                with root.interface(interface.name) as part:
                    self._define(part, interface)
                    for name in (name for where, name in missing if where == key):
                        part.function(name, self._denials.setdefault((key, name), _denial(f"{key}#{name}")))
        return linker

    def _define(self, part: ffi.Part, interface: Interface) -> None:
        for name, resource in interface.resources.items():
            part.resource(name, self._kinds[resource.key], self._destructors[resource.key])
        for name in interface.functions:
            part.function(name, self._callbacks[interface.name, name])

    def _missing(self, component: wasm.ComponentType) -> Iterator[Missing]:
        for name, item in component.imports(self._engine).items():
            kind = item.ty
            if not isinstance(kind, wasm.ComponentInstanceType):
                raise BadProgram(f"it imports {name}, which is no interface", field=name)
            for part, export in kind.exports(self._engine).items():
                theirs = export.ty
                if isinstance(theirs, wasm.FuncType) and not self._has(name, part, theirs):
                    yield _compatible(name), part

    def _has(self, interface: str, name: str, theirs: wasm.FuncType) -> bool:
        where = f"{interface}#{name}"
        found = self._interfaces.get(_compatible(interface))
        ours = found.functions.get(name) if found else None
        if ours is None:
            if found and interface.startswith(self._partial):
                return False
            raise BadProgram(f"it imports {where}, which this sandbox does not offer", field=where)
        try:
            signature = signature_of(theirs)
        except ValueError as error:
            raise BadProgram(
                f"it imports {where} with {error}, which this sandbox does not know", field=where
            ) from None
        if not same(ours.signature, signature):
            raise BadProgram(f"it imports {where} as {signature}; here it is {ours.signature}", field=where)
        return True


def _compatible(name: str) -> str:
    """An interface's name with as much of its version as has to be the same: 1.2.3 is 1, 0.2.3 is 0.2."""
    interface, _, version = name.partition("@")
    numbers = version.split(".")
    return f"{interface}@{'.'.join(numbers[: 2 if numbers[0] == '0' else 1])}"


def _denial(what: str) -> Any:
    def enter(*_: int) -> int:
        running = here.running
        running.end(Failure("not_granted", f"it called {what}, which no program here may"))
        return ffi.failure("ended")

    return ffi.HostCallback(enter)


def callback(function: Function, said: Said, converters: Converters) -> Any:
    """What C calls for *function*."""
    signature, call = function.signature, function.call
    takes = [converters.from_guest(each) for each in signature.parameters]
    read, result = ffi.reader(len(takes)), signature.result
    good, bad, sized = _answers(result, converters)
    slots = [(take, 4 * at + 1, 4 * at + 4) for at, take in enumerate(takes)]
    resources = signature.has_resources

    def enter(_: int, context: int, __: int, arguments: int, ___: int, results: int, ____: int) -> int:
        running = here.running
        try:
            if resources:
                here.context = context
            try:
                words = read(arguments)
                value = call(running, *[take(*words[start:end]) for take, start, end in slots])
            except Exception as error:
                told = None if bad is None or running.failure is not None else said(error)
                if told is None:
                    raise
                ffi.write(results, bad(told))
                return 0
            if sized:
                ffi.write(results, good(value))
        except BaseException as error:
            return ffi.failure(running.crashed(error))
        return 0

    return ffi.HostCallback(enter)


def _answers(result: Any, converters: Converters) -> tuple[Any, Any, bool]:
    """How to give a good and a bad answer, and whether there is one to give."""
    if result is None:
        return None, None, False
    if result[0] == "result":
        return converters.ok_to(result[1]), converters.error_to(result[2]), True
    return converters.to_guest(result), None, True


def _destructor(drop: Call) -> Any:
    def enter(_: int, __: int, rep: int) -> int:
        running = here.running
        try:
            thing = running.things.pop(rep, None)
            if thing is not None:
                drop(running, thing)
        except BaseException as error:
            return ffi.failure(running.crashed(error))
        return 0

    return ffi.Destructor(enter)
