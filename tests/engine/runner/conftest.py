from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bakehouse.engine.runner.torch.runner import TorchRunner, create
from bakehouse.engine.spec import ModelSpec
from tests.engine.tiny import eager, folder, one_thread

__all__ = ["eager", "folder", "one_thread"]

PAGES = 67


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
