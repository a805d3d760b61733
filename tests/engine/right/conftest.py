"""Tiny models of each family served whole, beside transformers' own; after each test the proof that nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bakehouse.engine.model import ServedModel
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine.right.support import Open
from tests.engine.session.support import settled
from tests.engine.tiny import Folder, eager, folder, one_thread

__all__ = ["eager", "folder", "one_thread"]


@pytest.fixture(scope="module")
def _serving(folder: Folder) -> Iterator[dict[tuple[Any, ...], ServedModel]]:
    made: dict[tuple[Any, ...], ServedModel] = {}
    yield made
    for served in made.values():
        served.close()


@pytest.fixture
def serve(folder: Folder, _serving: dict[tuple[Any, ...], ServedModel]) -> Iterator[Callable[..., ServedModel]]:
    """A family's tiny model, served in float32; made once per file. Prompts are chunked by 32 rows."""
    used: list[ServedModel] = []

    def of(family: str = "llama", **options: Any) -> ServedModel:
        key = (family, *sorted(options.items()))
        if key not in _serving:
            spec = {"kv_tokens": 4096, "max_context": 1024, "prefill_chunk": 32, "dtype": "fp32", **options}
            _serving[key] = ServedModel.load(ModelSpec(name=family, source=str(folder(family)), device="cpu", **spec))
        if _serving[key] not in used:
            used.append(_serving[key])
        return _serving[key]

    yield of
    for served in used:
        settled(served)


@pytest.fixture
def open_(serve: Callable[..., ServedModel]) -> Iterator[Open]:
    """A session with a family's model, closed before `serve` looks whether something is left."""
    sessions: list[Session] = []

    def of(family: str = "llama", owner: str = "ada", program: str = "", **options: Any) -> Session:
        sessions.append(Session(serve(family, **options), owner, program))
        return sessions[-1]

    yield of
    for session in sessions:
        session.close()
