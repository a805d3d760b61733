"""Fixtures of the suites that run tiny models beside transformers' own. A conftest imports those that it offers.

Not in `tests/engine/conftest.py`, because the planning tests beside it run where there is no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bakehouse.engine.runner.torch.load import quiet
from tests.engine import models

Folder = Callable[[str], Path]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
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
    """transformers' own model with its eager attention, in float32, on the CPU."""
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
