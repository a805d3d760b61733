"""How wasmtime is set up: one engine for all guests of a process, and what a guest's store may hold."""

from __future__ import annotations

import resource
import threading

from wasmtime import Config, Engine, Store

from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.sandbox import ffi

# A component of Python has one memory, 2 tables and some 10 instances; its tables hold some 6000 functions.
_MEMORIES, _TABLES, _INSTANCES, _ELEMENTS = 1, 8, 64, 50_000

#: What a thread gets where the limit of the process is none.
_WITHOUT_LIMIT = 2 << 20

#: Changes with whatever changes the code that is compiled.
SETTINGS = "epochs, no concurrency"


def engine_of_guests() -> Engine:
    """Instances are mapped on demand. Out of slots set aside (the pooling allocator) they were no faster to make in our
    measurements, and the slots cost memory for good."""
    config = Config()
    config.epoch_interruption = True
    config.memory_init_cow = True
    config.parallel_compilation = True
    config.max_wasm_stack = _stack()
    ffi.without_concurrency(config)
    return Engine(config)


def _stack() -> int:
    """Bytes of a thread's stack that a guest may use. With 2 MiB recursion through Python's own functions becomes a
    `RecursionError` rather than the program's end; the rest of the thread's stack is for what the guest calls."""
    most, _ = resource.getrlimit(resource.RLIMIT_STACK)
    default = _WITHOUT_LIMIT if most == resource.RLIM_INFINITY else most
    return min(2 << 20, (threading.stack_size() or default) // 4)


def store_of(engine: Engine, limits: Limits) -> Store:
    store = Store(engine)
    store.set_limits(
        memory_size=limits.memory,
        table_elements=_ELEMENTS,
        instances=_INSTANCES,
        tables=_TABLES,
        memories=_MEMORIES,
    )
    return store
