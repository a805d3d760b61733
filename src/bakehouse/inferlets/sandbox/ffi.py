"""The C library of wasmtime, where the `wasmtime` package leaves off. Nothing else of ours calls it by name.

Three things are missing there or cost too much: what is called at an epoch's deadline, host functions whose
conversions are worked out once and not on every call, and host resources. Addresses are plain integers here. Functions
that allocate are called with the interpreter's lock held: to let it go for a microsecond costs more than they do.

The package's version is pinned: its layout of a value (`VALUE`) is part of this file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_char, c_char_p, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from struct import Struct
from typing import Any

from wasmtime import Config, Store, WasmtimeError
from wasmtime._ffi import filename, wasmtime_error_t
from wasmtime.component import Component, Linker

#: A value: its kind, then 24 bytes that depend on it.
VALUE = Struct("<B7xQQQ")
ENTRY = Struct("<QQB7xQQQ")
BOOL, S8, U8, S16, U16, S32, U32, S64, U64, F32, F64, CHAR, STRING, LIST = range(14)
RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT, FLAGS, RESOURCE = range(14, 22)

_slow, _quick = ctypes.CDLL(str(filename)), ctypes.PyDLL(str(filename))


def _declare(library: ctypes.CDLL, name: str, answer: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = answer, list(arguments)
    return function


_bytes_new = _declare(_quick, "wasm_byte_vec_new", None, c_void_p, c_size_t, c_char_p)
_list_new = _declare(_quick, "wasmtime_component_vallist_new_uninit", None, c_void_p, c_size_t)
_tuple_new = _declare(_quick, "wasmtime_component_valtuple_new_uninit", None, c_void_p, c_size_t)
_record_new = _declare(_quick, "wasmtime_component_valrecord_new_uninit", None, c_void_p, c_size_t)
_box = _declare(_quick, "wasmtime_component_val_new", c_void_p, c_void_p)
_delete = _declare(_quick, "wasmtime_component_val_delete", None, c_void_p)
_error_new = _declare(_quick, "wasmtime_error_new", c_void_p, c_char_p)
_host_new = _declare(_quick, "wasmtime_component_resource_host_new", c_void_p, ctypes.c_bool, c_uint32, c_uint32)
_host_rep = _declare(_quick, "wasmtime_component_resource_host_rep", c_uint32, c_void_p)
_host_type = _declare(_quick, "wasmtime_component_resource_host_type", c_uint32, c_void_p)
_host_delete = _declare(_quick, "wasmtime_component_resource_host_delete", None, c_void_p)
_host_to_any = _declare(_quick, "wasmtime_component_resource_host_to_any", c_void_p, c_void_p, c_void_p, c_void_p)
_any_to_host = _declare(_quick, "wasmtime_component_resource_any_to_host", c_void_p, c_void_p, c_void_p, c_void_p)
_root = _declare(_slow, "wasmtime_component_linker_root", c_void_p, c_void_p)
_part_delete = _declare(_slow, "wasmtime_component_linker_instance_delete", None, c_void_p)
_add_part = _declare(
    _slow, "wasmtime_component_linker_instance_add_instance", c_void_p, c_void_p, c_char_p, c_size_t, c_void_p
)
_add_function = _declare(
    _slow,
    "wasmtime_component_linker_instance_add_func",
    c_void_p,
    c_void_p,
    c_char_p,
    c_size_t,
    c_void_p,
    c_void_p,
    c_void_p,
)
_add_resource = _declare(
    _slow,
    "wasmtime_component_linker_instance_add_resource",
    c_void_p,
    c_void_p,
    c_char_p,
    c_size_t,
    c_void_p,
    c_void_p,
    c_void_p,
    c_void_p,
)
_resource_type = _declare(_slow, "wasmtime_component_resource_type_new_host", c_void_p, c_uint32)
_resource_type_delete = _declare(_slow, "wasmtime_component_resource_type_delete", None, c_void_p)
_on_epoch = _declare(_slow, "wasmtime_store_epoch_deadline_callback", None, c_void_p, c_void_p, c_void_p, c_void_p)
_concurrency = _declare(_slow, "wasmtime_config_concurrency_support_set", None, c_void_p, ctypes.c_bool)
_find_export = _declare(
    _slow, "wasmtime_component_instance_get_export_index", c_void_p, c_void_p, c_void_p, c_void_p, c_char_p, c_size_t
)
_export_delete = _declare(_slow, "wasmtime_component_export_index_delete", None, c_void_p)
_find_function = _declare(
    _slow, "wasmtime_component_instance_get_func", ctypes.c_bool, c_void_p, c_void_p, c_void_p, c_void_p
)
_instantiate = _declare(
    _slow, "wasmtime_component_linker_instantiate", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p
)
_call = _declare(
    _slow,
    "wasmtime_component_func_call",
    c_void_p,
    c_void_p,
    c_void_p,
    c_void_p,
    c_size_t,
    c_void_p,
    c_size_t,
)

HostCallback = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)
"""data, context, function type, arguments, their number, results, their number -> an error, or 0"""
Destructor = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_uint32)
EpochCallback = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_void_p)

_Error = ctypes.POINTER(wasmtime_error_t)
_Value = c_char * VALUE.size
_Pair = c_uint64 * 2
_Thing = c_uint64 * 4


def address(pointer: Any) -> int:
    """Of what a pointer of the `wasmtime` package points to."""
    return ctypes.cast(pointer, c_void_p).value or 0


def read(where: int) -> tuple[int, ...]:
    """Kind and three words of the value at *where*."""
    return VALUE.unpack_from(_Value.from_address(where))


def write(where: int, value: tuple[int, int, int, int]) -> None:
    VALUE.pack_into(_Value.from_address(where), 0, *value)


def reader(count: int) -> Callable[[int], tuple[int, ...]]:
    """Reads *count* values that lie one after the other: four words each."""
    size, layout = c_char * (count * VALUE.size), Struct("<" + "B7xQQQ" * count)
    unpack, at = layout.unpack_from, size.from_address
    return lambda where: unpack(at(where))


def string(data: bytes) -> tuple[int, int]:
    """Size and address of a copy that whoever takes the value frees."""
    out = _Pair()
    _bytes_new(out, len(data), data)
    return out[0], out[1]


def boxed(value: tuple[int, int, int, int]) -> int:
    """The address of a value of its own."""
    room = _Value()
    VALUE.pack_into(room, 0, *value)
    return int(_box(room))


def sequence(values: Sequence[tuple[int, int, int, int]], *, kind: int = LIST) -> tuple[int, int]:
    """Number and address of a list or tuple."""
    out = _Pair()
    (_list_new if kind == LIST else _tuple_new)(out, len(values))
    if values:
        room = (c_char * (len(values) * VALUE.size)).from_address(out[1])
        for at, value in enumerate(values):
            VALUE.pack_into(room, at * VALUE.size, *value)
    return out[0], out[1]


def filled(data: bytes) -> tuple[int, int]:
    """A list whose values were laid out before, `VALUE.size` bytes each."""
    out = _Pair()
    _list_new(out, len(data) // VALUE.size)
    ctypes.memmove(out[1], data, len(data))
    return out[0], out[1]


def record(fields: Sequence[tuple[bytes, tuple[int, int, int, int]]]) -> tuple[int, int]:
    out = _Pair()
    _record_new(out, len(fields))
    room = (c_char * (len(fields) * ENTRY.size)).from_address(out[1])
    for at, (name, value) in enumerate(fields):
        ENTRY.pack_into(room, at * ENTRY.size, *string(name), *value)
    return out[0], out[1]


def entry(where: int, index: int) -> tuple[int, ...]:
    """Kind and words of the value of one field of the record at *where*."""
    return read(where + index * ENTRY.size + 16)


def failure(text: str) -> int:
    """An error that ends the guest when a callback returns it."""
    return int(_error_new(text.encode().replace(b"\0", b"")))


def give(context: int, rep: int, kind: int) -> int:
    """A resource *rep* of host type *kind*, owned by the guest that it is handed to."""
    host, out = _host_new(True, rep, kind), c_void_p()
    try:
        _check(_host_to_any(context, host, ctypes.byref(out)))
    finally:
        _host_delete(host)
    return out.value or 0


def taken(context: int, resource: int, kind: int) -> int:
    """The number of a host resource that a guest passed, owned or lent. Raises `WasmtimeError` for another type."""
    out = c_void_p()
    _check(_any_to_host(context, resource, ctypes.byref(out)))
    try:
        if _host_type(out) != kind:
            raise WasmtimeError("a resource of another type")
        return int(_host_rep(out))
    finally:
        _host_delete(out)


def _check(error: int | None) -> None:
    if error:
        raise WasmtimeError._from_ptr(ctypes.cast(error, _Error))


class Part:
    """One interface of a linker, or its root. While one is open its parent must not be used."""

    def __init__(self, where: int) -> None:
        self._where = where

    @classmethod
    def root(cls, linker: Linker) -> Part:
        return cls(_root(linker.ptr()))

    def interface(self, name: str) -> Part:
        out, text = c_void_p(), name.encode()
        _check(_add_part(self._where, text, len(text), ctypes.byref(out)))
        return Part(out.value or 0)

    def function(self, name: str, callback: Any) -> None:
        """*callback* (`HostCallback`) must live as long as the linker."""
        text = name.encode()
        _check(_add_function(self._where, text, len(text), ctypes.cast(callback, c_void_p), None, None))

    def resource(self, name: str, kind: int, destructor: Any) -> None:
        text, host = name.encode(), _resource_type(kind)
        try:
            _check(_add_resource(self._where, text, len(text), host, ctypes.cast(destructor, c_void_p), None, None))
        finally:
            _resource_type_delete(host)

    def close(self) -> None:
        _part_delete(self._where)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def without_concurrency(config: Config) -> None:
    """Take away what the component model's own asynchronous calls need; programs wait through us.

    Calls are a little quicker so. And with it wasmtime 50 stops a guest that passes two resources in one call.
    """
    _concurrency(config.ptr(), False)


def on_epoch(store: Store, callback: Any) -> None:
    """Call *callback* (`EpochCallback`: context, data, ticks until the next, what to do) at the next epoch."""
    _on_epoch(store.ptr(), ctypes.cast(callback, c_void_p), None, None)
    store.set_epoch_deadline(1)


def go_on(ticks: int, action: int) -> None:
    """What an epoch callback writes to be called again at the next epoch."""
    c_uint64.from_address(ticks).value = 1
    c_uint8.from_address(action).value = 0


class Instance:
    """A component in a store, that its one function may be called. Both raise `WasmtimeError`; a trap is one."""

    def __init__(self, linker: Linker, store: Store, component: Component) -> None:
        self._store, self._room = store, _Thing()
        _check(_instantiate(linker.ptr(), store._context(), component.ptr(), self._room))

    def call(
        self, interface: str, function: str, arguments: Sequence[tuple[int, int, int, int]], take: Callable[..., Any]
    ) -> Any:
        """*take* gets the kind and the words of the result. Arguments are freed."""
        found = self._function(interface, function)
        room = (c_char * (VALUE.size * len(arguments)))()
        for at, value in enumerate(arguments):
            VALUE.pack_into(room, at * VALUE.size, *value)
        result = _Value()
        try:
            _check(_call(found, self._store._context(), room, len(arguments), result, 1))
        finally:
            for at in range(len(arguments)):
                _delete(ctypes.addressof(room) + at * VALUE.size)
        try:
            return take(*VALUE.unpack_from(result))
        finally:
            _delete(result)

    def _function(self, interface: str, function: str) -> Any:
        outer = self._export(None, interface)
        try:
            inner, found = self._export(outer, function), _Thing()
            try:
                _find_function(self._room, self._store._context(), inner, found)
            finally:
                _export_delete(inner)
        finally:
            _export_delete(outer)
        return found

    def _export(self, within: int | None, name: str) -> int:
        text = name.encode()
        found = _find_export(self._room, self._store._context(), within, text, len(text))
        if not found:
            raise WasmtimeError(f"no export {name}")
        return int(found)
