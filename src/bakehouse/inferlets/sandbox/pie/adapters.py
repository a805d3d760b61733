"""Adapters, and their training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.base import PARSER, Known, drop_nothing, said, taken
from bakehouse.inferlets.sandbox.pie.models import Model
from bakehouse.inferlets.sandbox.running import Running


@dataclass(frozen=True, slots=True)
class Adapter:
    handle: int


def _create(running: Running, model: Model, name: str) -> Adapter:
    return Adapter(int(taken(running, running.calls.adapters.create(model.handle, name))))


def _lookup(running: Running, model: Model, name: str) -> Adapter | None:
    found = running.calls.adapters.lookup(model.handle, name)
    return None if found is None else Adapter(found)


def _destroy(running: Running, adapter: Adapter) -> None:
    taken(running, running.calls.adapters.remove(adapter.handle))


def _clone(running: Running, adapter: Adapter, name: str) -> Adapter:
    return Adapter(int(taken(running, running.calls.adapters.clone(adapter.handle, name))))


def _acquire(running: Running, adapter: Adapter) -> Known:
    return Known(running.calls.adapters.lock(adapter.handle))


def _release(running: Running, adapter: Adapter) -> None:
    running.calls.adapters.unlock(adapter.handle)


def _load(running: Running, adapter: Adapter, path: str) -> None:
    taken(running, running.calls.adapters.load(adapter.handle, path))


def _save(running: Running, adapter: Adapter, path: str) -> None:
    taken(running, running.calls.adapters.save(adapter.handle, path))


def _initialize(
    running: Running, adapter: Adapter, rank: int, alpha: float, population: int, share: float, sigma: float
) -> None:
    options = {
        "rank": rank,
        "alpha": alpha,
        "population_size": population,
        "mu_fraction": share,
        "initial_sigma": sigma,
    }
    taken(running, running.calls.adapters.zo_initialize(adapter.handle, json.dumps(options)))


def _update(running: Running, adapter: Adapter, scores: list[float], seeds: list[int], sigma: float) -> None:
    options = {"scores": scores, "seeds": seeds, "max_sigma": sigma}
    taken(running, running.calls.adapters.zo_update(adapter.handle, json.dumps(options)))


_of, _self, _done = "[method]adapter.", "borrow<adapter>", "result<_, error>"
_TABLE: dict[str, Callable[..., Any]] = {
    "[static]adapter.create(borrow<model>, string) -> result<own<adapter>, error>": _create,
    "[static]adapter.lookup(borrow<model>, string) -> option<own<adapter>>": _lookup,
    f"{_of}destroy({_self})": _destroy,
    f"{_of}clone({_self}, string) -> own<adapter>": _clone,
    f"{_of}acquire-lock({_self}) -> own<future-bool>": _acquire,
    f"{_of}release-lock({_self}) -> {_done}": _release,
    f"{_of}load({_self}, string) -> {_done}": _load,
    f"{_of}save({_self}, string) -> {_done}": _save,
}
TRAINING: dict[str, Callable[..., Any]] = {
    f"initialize({_self}, u32, f32, u32, f32, f32) -> {_done}": _initialize,
    f"update({_self}, list<f32>, list<s64>, f32) -> {_done}": _update,
}
"""Of the interface zo; the rest of it is about passes."""


def interfaces() -> Iterator[Interface]:
    yield Interface("pie:core/adapter@0.2.0", said, PARSER, _TABLE, {"adapter": drop_nothing})
