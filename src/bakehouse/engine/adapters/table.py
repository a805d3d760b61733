"""Adapters by name, for all owners of one model: ids, locks, and who may change what. Standard library only.

Ids are counted up and never used again; slots, of which there are few, belong to the store. A lock is exclusive and
tried once. It is tied to the program that took it and goes with that program. Nothing needs the lock, but while one
program holds it, no other may change the adapter; everybody may run passes with it, look it up, clone it and save it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from bakehouse.engine.adapters.base import AdapterStore, Change, ZoParams
from bakehouse.engine.errors import BadRequest, Locked, NameTaken, NotFound

MAX_NAME = 256


@dataclass(slots=True, eq=False)
class Adapter:
    """``holder`` is the program that has the lock."""

    id: int
    name: str
    slot: int
    holder: str | None = None


class AdapterTable:
    """What changes weights or slots is called from the thread that the store is called from, between steps.

    `lookup`, `get`, `acquire`, `release` and `end_program` may be called from any thread and do not block; `save` and
    the ``prepare_`` calls too, and they take their time.
    """

    def __init__(self, store: AdapterStore) -> None:
        self._store = store
        self._ids = itertools.count(1)
        self._by_id: dict[int, Adapter] = {}
        self._by_name: dict[str, Adapter] = {}
        self._guard = RLock()

    def create(self, name: str) -> Adapter:
        """A new adapter that changes nothing yet. Raises `NameTaken`, and `LimitExceeded` when all slots are taken."""
        self._check_free(name)
        return self._enter(name, self._store.create())

    def clone(self, adapter: int, name: str) -> Adapter:
        """A new adapter with a copy of the weights and of their optimiser. Nobody holds its lock."""
        source = self.get(adapter)
        self._check_free(name)
        return self._enter(name, self._store.clone(source.slot))

    def remove(self, adapter: int, program: str) -> None:
        """Free name and slot. Passes that name it must be over."""
        entry = self._changeable(adapter, program)
        self._store.remove(entry.slot)
        with self._guard:
            del self._by_id[entry.id], self._by_name[entry.name]

    def lookup(self, name: str) -> Adapter | None:
        with self._guard:
            return self._by_name.get(name)

    def get(self, adapter: int) -> Adapter:
        """Raises `NotFound`."""
        with self._guard:
            try:
                return self._by_id[adapter]
            except KeyError:
                raise NotFound(f"there is no adapter {adapter}", field="adapter") from None

    @property
    def capacity(self) -> int:
        """How many there can be at one time."""
        return self._store.capacity

    def names(self) -> list[str]:
        with self._guard:
            return sorted(self._by_name)

    def generation(self, adapter: int) -> int:
        """Which weights it has now; part of the key of pages computed with it."""
        return self._store.generation(self.get(adapter).slot)

    def require_zo(self, adapter: int) -> None:
        """Raises `BadRequest` for a seed on an adapter without noise."""
        if not self._store.has_zo(self.get(adapter).slot):
            raise BadRequest.at("zo_seed", f"adapter {adapter} was not initialised for zo, so a seed changes nothing")

    def acquire(self, adapter: int, program: str) -> bool:
        """Take the lock if nobody has it. False where somebody has, the program itself included."""
        with self._guard:
            entry = self.get(adapter)
            if entry.holder is not None:
                return False
            entry.holder = program
            return True

    def release(self, adapter: int, program: str) -> None:
        """Give the lock back; nothing happens where nobody holds it. Raises `Locked` where another program does."""
        with self._guard:
            entry = self.get(adapter)
            _check_holder(entry, program)
            entry.holder = None

    def end_program(self, program: str) -> None:
        """Free every lock that the program holds."""
        with self._guard:
            for entry in self._by_id.values():
                if entry.holder == program:
                    entry.holder = None

    def load(self, adapter: int, path: Path, program: str) -> None:
        self._store.load(self._changeable(adapter, program).slot, path)

    def prepare_load(self, adapter: int, path: Path, program: str) -> Change:
        """The slow part of `load`, on any thread, while steps run. The rest is refused like `load` itself."""
        change = self._store.prepare_load(self._changeable(adapter, program).slot, path)
        return lambda: self._finish(adapter, program, change)

    def save(self, adapter: int, path: Path) -> None:
        self._store.save(self.get(adapter).slot, path)

    def initialize_zo(self, adapter: int, params: ZoParams, program: str) -> None:
        self._store.initialize_zo(self._changeable(adapter, program).slot, params)

    def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float, program: str
    ) -> None:
        self._store.update_zo(self._changeable(adapter, program).slot, scores, seeds, max_sigma)

    def prepare_update(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float, program: str
    ) -> Change:
        """The slow part of `update_zo`, on any thread, while steps run. The rest is refused like `update_zo` itself."""
        change = self._store.prepare_update(self._changeable(adapter, program).slot, scores, seeds, max_sigma)
        return lambda: self._finish(adapter, program, change)

    def _finish(self, adapter: int, program: str, change: Change) -> None:
        self._changeable(adapter, program)
        change()

    def _changeable(self, adapter: int, program: str) -> Adapter:
        """The adapter, unless another program has locked it. One that locks it later sees the change done: whatever it
        does with the weights comes after, on the same thread."""
        with self._guard:
            entry = self.get(adapter)
            _check_holder(entry, program)
            return entry

    def _check_free(self, name: str) -> None:
        if not isinstance(name, str) or not name or len(name) > MAX_NAME:
            raise BadRequest.at("name", f"must be a text of 1 to {MAX_NAME} characters")
        if self.lookup(name) is not None:
            raise NameTaken(f"there is an adapter named {name!r}; look it up or choose another name", field="name")

    def _enter(self, name: str, slot: int) -> Adapter:
        entry = Adapter(next(self._ids), name, slot)
        with self._guard:
            self._by_id[entry.id] = self._by_name[name] = entry
        return entry


def _check_holder(entry: Adapter, program: str) -> None:
    if entry.holder not in (None, program):
        raise Locked(f"adapter {entry.name!r} is locked by another program; try again when it is free")
