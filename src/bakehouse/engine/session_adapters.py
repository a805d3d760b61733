"""Calls of a session on adapters. Weights are changed between two steps, on the loop's thread; what takes long about it
runs beside the model before that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from bakehouse.engine.adapters.base import Change, ZoParams
from bakehouse.engine.adapters.table import AdapterTable
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.session_base import SessionBase


class AdapterCalls(SessionBase):
    """See `session.Session`."""

    def create_adapter(self, name: str) -> Future[int]:
        table = self._adapters()
        return self._loop.call(lambda: table.create(name).id)

    def lookup_adapter(self, name: str) -> int | None:
        found = self._adapters().lookup(name)
        return None if found is None else found.id

    def adapter_names(self) -> list[str]:
        """Of all adapters of the model."""
        return self._adapters().names()

    def adapter_capacity(self) -> int:
        """How many adapters of the model there can be, of all owners together."""
        return self._adapters().capacity

    def clone_adapter(self, adapter: int, name: str) -> Future[int]:
        table = self._adapters()
        return self._loop.call(lambda: table.clone(adapter, name).id)

    def remove_adapter(self, adapter: int) -> Future[None]:
        table = self._adapters()

        def remove() -> None:
            self._loop.require_unused(table.get(adapter).slot)
            table.remove(adapter, self.program)

        return self._loop.call(remove)

    def lock_adapter(self, adapter: int) -> bool:
        return self._adapters().acquire(adapter, self.program)

    def unlock_adapter(self, adapter: int) -> None:
        self._adapters().release(adapter, self.program)

    def load_adapter(self, adapter: int, path: str) -> Future[None]:
        folder = _folder(path)
        return self._prepare(adapter, lambda table: table.prepare_load(adapter, folder, self.program))

    def save_adapter(self, adapter: int, path: str) -> Future[None]:
        table, folder = self._adapters(), _folder(path)
        return self._loop.run_aside(self.owner, lambda: table.save(adapter, folder))

    def initialize_zo(self, adapter: int, params: ZoParams) -> Future[None]:
        return self._change(adapter, lambda table: table.initialize_zo(adapter, params, self.program))

    def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0
    ) -> Future[None]:
        return self._prepare(
            adapter, lambda table: table.prepare_update(adapter, scores, seeds, max_sigma, self.program)
        )

    def _prepare(self, adapter: int, prepare: Callable[[AdapterTable], Change]) -> Future[None]:
        table = self._adapters()

        def run() -> None:
            change = prepare(table)
            self._change(adapter, lambda table: change()).result()

        return self._loop.run_aside(self.owner, run)

    def _change(self, adapter: int, change: Callable[[AdapterTable], None]) -> Future[None]:
        table = self._adapters()

        def run() -> None:
            change(table)
            self._loop.weights_changed(table.get(adapter).slot, table.generation(adapter))

        return self._loop.call(run)


def _folder(path: object) -> Path:
    if not isinstance(path, str) or not path or "\0" in path:
        raise BadRequest.at("path", f"must be the path of a folder, not {path!r}")
    return Path(path)
