"""Tiny models of each family served whole, beside transformers' own; after each test the proof that nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bakehouse.engine.model import ServedModel
from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine import models
from tests.engine.right.support import Open
from tests.engine.session.support import settled

Folder = Callable[[str], Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a family's tiny model, made once."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = models.make_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


@pytest.fixture(scope="session")
def eager(folder: Folder) -> Callable[[str], Any]:
    """transformers' own model with its eager attention, in float32."""
    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            with quiet():
                loaded = AutoModelForCausalLM.from_pretrained(
                    folder(family), attn_implementation="eager", dtype=torch.float32
                )
            made[family] = loaded.eval().requires_grad_(False)
        return made[family]

    return of


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
