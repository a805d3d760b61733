from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.runner.torch.runner import TorchRunner, create
from bakehouse.engine.spec import ModelSpec
from tests.engine import models

PAGES = 67


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, made once."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = models.make_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


@pytest.fixture(scope="session")
def runner(folder: Callable[[str], Path]) -> Callable[[str], TorchRunner]:
    """A family's runner in float32, with `PAGES` pages; made once, as it keeps no record of sequences."""
    made: dict[str, TorchRunner] = {}

    def of(family: str) -> TorchRunner:
        if family not in made:
            made[family] = create(ModelSpec(name=family, source=str(folder(family)), dtype="fp32"))
            made[family].allocate(PAGES)
        return made[family]

    return of


@pytest.fixture(scope="session")
def eager(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """transformers' own model with its eager attention, in float32."""
    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            with quiet():
                loaded = AutoModelForCausalLM.from_pretrained(
                    folder(family), attn_implementation="eager", dtype=torch.float32
                )
            made[family] = loaded.eval()
        return made[family]

    return of
