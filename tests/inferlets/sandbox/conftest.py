"""A sandbox, a model that is none, and programs that do as they are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE
from tests.inferlets.sandbox.support import HONEST, WIT, Runner, build


class Neighbour(Protocol):
    def __call__(self) -> AbstractContextManager[None]: ...


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(CACHE / "compiled")
    yield made
    made.close()


@pytest.fixture(scope="session")
def model() -> Iterator[ServedModel]:
    made = ServedModel.load(ModelSpec(name="tiny", source="dummy", seed=1))
    yield made
    made.close()


@pytest.fixture(scope="session")
def wasm() -> Path:
    return build(Path(__file__).parent / "guest.py", WIT, "inferlet")


@pytest.fixture
def guests(sandbox: Sandbox, model: ServedModel, wasm: Path) -> Iterator[Runner]:
    """Afterwards the engine holds nothing of theirs."""
    yield Runner(sandbox, sandbox.load(wasm), Engine([model]))
    model.planner.check_integrity()


@pytest.fixture
def neighbour(guests: Runner) -> Neighbour:
    """An honest program that runs beside what is in the block, and must come to its right end."""

    @contextmanager
    def beside() -> Iterator[None]:
        with guests.running(HONEST) as honest:
            yield
            assert honest.wait(30).result == "(1, 20)"

    return beside
