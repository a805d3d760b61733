"""How wasmtime is set up: one engine for all guests of a process, and what a guest's store may hold."""

from __future__ import annotations

from dataclasses import dataclass

from wasmtime import Config, Engine, Store

from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.sandbox import ffi

#: Python's interpreter needs this much to start; less is not a small program but none.
LEAST_MEMORY = 16 << 20

# What components of Python use is 4 memories at most, some 30 instances and tables, and tables of 20,000 functions.
_MEMORIES, _TABLES, _INSTANCES, _ELEMENTS = 4, 16, 128, 100_000


@dataclass(frozen=True, slots=True)
class Setup:
    """``most`` guests at one time. ``settings`` changes with whatever changes the code that is compiled."""

    most: int = 512
    pooled: bool = False

    @property
    def settings(self) -> str:
        return f"epoch pooled={self.pooled}"

    def engine(self) -> Engine:
        config = Config()
        config.epoch_interruption = True
        config.memory_init_cow = True
        config.parallel_compilation = True
        if self.pooled:
            self._pool(config)
        return Engine(config)

    def _pool(self, config: Config) -> None:
        ffi.pool(
            config,
            total_component_instances=self.most,
            total_core_instances=self.most * _INSTANCES,
            total_memories=self.most * _MEMORIES,
            total_tables=self.most * _TABLES,
            max_memories_per_component=_MEMORIES,
            max_tables_per_component=_TABLES,
            max_core_instances_per_component=_INSTANCES,
            table_elements=_ELEMENTS,
        )


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
