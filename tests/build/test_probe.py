"""Builds with everything real: our own wheels, uv's index, and the probe of the launch room."""

from __future__ import annotations

from functools import partial

import pytest

from bakehouse.build.wheels import FOLDER
from bakehouse.core.executor import Finished
from bakehouse.launch.base import LaunchSettings
from bakehouse.launch.probe import describe
from tests.build.support import Bench, Shop, app_files

HEAD = """
from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File

class Setup(BaseAppSetup):
    size: int = 1

class Input(BaseAppInput):
    text: str
    image: File

class Output(BaseAppOutput):
    text: str
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One data directory for the module: all of its apps share one environment."""
    return Bench(tmp_path_factory.mktemp("probe"), FOLDER)


@pytest.fixture
def shop(bench: Bench) -> Shop:
    return Shop(bench.builder(describe=partial(describe, LaunchSettings(bench.home)), probe_timeout=20.0))


async def test_functions_schemas_and_setup_are_read(shop: Shop, bench: Bench) -> None:
    code = f"""{HEAD}
class App(BaseApp):
    async def setup(self, config: Setup): ...
    async def run(self, input_data: Input) -> Output:
        '''Says it.'''
    def again(self, input_data: Input) -> Output: ...
    def helper(self): ...
"""
    outcome, sink = await shop.build(bench.version(app_files(inference_py=code)))
    assert isinstance(outcome, Finished)
    assert outcome.failure is None, sink.log
    (stored,) = shop.stored
    assert [function.name for function in stored.functions] == ["run", "again"]
    run = stored.functions[0]
    assert run.description == "Says it."
    assert list(run.input_schema["properties"]) == ["text", "image"]
    assert run.input_schema["properties"]["image"]["format"] == "file"
    assert stored.setup_schema is not None
    assert list(stored.setup_schema["properties"]) == ["size"]
    assert not list((bench.home / "instances").iterdir())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"{HEAD}\nimport nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        (f"{HEAD}\nraise RuntimeError('boom')", "boom"),
        (f"{HEAD}\nimport os\nos._exit(7)", "7"),
        (f"{HEAD}\nimport sys\nsys.exit('no')", "does not load"),
        (f"{HEAD}\nimport os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("x = 1", "BaseApp"),
        (f"{HEAD}\nclass A(BaseApp): ...\nclass B(BaseApp): ...", "BaseApp"),
        (f"{HEAD}\nclass A(BaseApp):\n    def helper(self): ...", "type-hinted input"),
    ],
)
async def test_an_app_that_cannot_be_loaded_says_why(shop: Shop, bench: Bench, code: str, reason: str) -> None:
    outcome, _ = await shop.build(bench.version(app_files(inference_py=code)))
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert reason in outcome.failure.message
    assert "\n" not in outcome.failure.message
    assert shop.stored[-1].status == "failed"
    assert not list((bench.home / "instances").iterdir())


async def test_concurrency_needs_async_functions(shop: Shop, bench: Bench) -> None:
    async_only = f"{HEAD}\nclass A(BaseApp):\n    async def run(self, input_data: Input) -> Output: ..."
    mixed = f"{async_only}\n    def other(self, input_data: Input) -> Output: ..."
    manifest = "name: a\nconcurrency: 4"
    outcome, _ = await shop.build(bench.version(app_files(inf_yml=manifest, inference_py=mixed)))
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert "async functions only" in outcome.failure.message
    await shop.build(bench.version(app_files(inf_yml=manifest, inference_py=async_only)))
    assert shop.stored[-1].status == "ready"
