"""A host on the dummy engine with a few programs installed, and what must be true of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.base import Outcome
from bakehouse.inferlets.host import InferletHost, Instance
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE, Build
from tests.inferlets.host.support import SPINNING, Seen, launch, manifest, small

Start = Callable[..., tuple[Instance, Seen]]


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
def engine(model: ServedModel) -> Engine:
    return Engine([model])


@pytest.fixture(scope="session")
def tool(built: Build) -> bytes:
    """`tool.py` as a component."""
    return built((Path(__file__).parent / "tool.py").read_text()).read_bytes()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox, tool: bytes) -> ProgramStore:
    """What ``ada`` and ``bob`` have installed. Not to be changed."""
    store = ProgramStore(tmp_path_factory.mktemp("programs"), sandbox)
    for owner in ("ada", "bob"):
        store.install(owner, manifest("tool"), tool)
        store.install(owner, manifest("small"), small("done"))
        store.install(owner, manifest("spin"), small("", body=SPINNING))
    return store


@pytest.fixture
def host(engine: Engine, sandbox: Sandbox, programs: ProgramStore, model: ServedModel) -> Iterator[InferletHost]:
    """Afterwards nothing that ran on it may be left."""
    made = InferletHost(engine, sandbox, programs)
    yield made
    made.close()
    assert made.stats()["instances"] == 0
    model.planner.check_integrity()


@pytest.fixture
def start(host: InferletHost) -> Start:
    """Launch ``tool`` with arguments; the instance and what is seen of it."""

    def run(*arguments: str, program: str = "tool", **options: object) -> tuple[Instance, Seen]:
        seen = Seen()
        return host.launch(launch(program, *arguments, **options), seen), seen  # type: ignore[arg-type]

    return run


@pytest.fixture
def finish(start: Start) -> Callable[..., Outcome]:
    """Launch ``tool`` with arguments and wait for its end."""

    def run(*arguments: str, **options: object) -> Outcome:
        outcome = start(*arguments, **options)[0].wait(60)
        assert outcome is not None
        return outcome

    return run
