"""A served dummy, and after each test the proof that nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from tests.engine.session.support import Programs, settled

SPEC = ModelSpec(name="dummy", source="dummy", seed=7)


@pytest.fixture(scope="module")
def shared() -> Iterator[ServedModel]:
    served = ServedModel.load(SPEC)
    yield served
    served.close()


@pytest.fixture
def served(shared: ServedModel) -> Iterator[ServedModel]:
    """The module's dummy. Every test leaves it empty: no page held, no context, no job."""
    yield shared
    settled(shared)


@pytest.fixture
def programs(served: ServedModel) -> Iterator[Programs]:
    """Opens sessions and closes them after the test, before `served` looks."""
    made = Programs(served)
    yield made
    made.close()
