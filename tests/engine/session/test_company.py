"""What a program gets does not depend on what else is in the batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.model import ServedModel
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine.session.mix import program
from tests.engine.session.support import settled

PROGRAMS = 64

#: The 64 programs hold some 300 pages at the same time; the tight pool puts contexts aside again and again.
POOLS = {"roomy": 40_000, "tight": 1_600}


@pytest.fixture(scope="module", params=["dummy", "torch"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "dummy":
        return "dummy"
    from tests.engine.models import make_model

    return str(make_model(tmp_path_factory.mktemp("model"), "qwen3"))


def serve(source: str, tokens: int) -> ServedModel:
    options: dict[str, Any] = {} if source == "dummy" else {"dtype": "fp32", "device": "cpu"}
    served = ServedModel.load(ModelSpec(name="mix", source=source, kv_tokens=tokens, max_context=4096, **options))
    with Session(served, "baker") as session:
        for number in range(2):
            adapter = session.create_adapter(f"bread-{number}").result(60)
            session.initialize_zo(adapter, ZoParams(4, 8.0, 4, 0.5, 0.05)).result(60)
            session.update_zo(adapter, [1.0, 2.0, 3.0, 4.0], [5 + number, 6, 7, 8]).result(60)
    return served


def run(served: ServedModel, number: int) -> Any:
    with Session(served, f"owner-{number % 5}", f"program-{number}") as session:
        return program(number)(session, number)


@pytest.fixture(scope="module")
def alone(source: str) -> Iterator[list[Any]]:
    served = serve(source, POOLS["roomy"])
    try:
        yield [run(served, number) for number in range(PROGRAMS)]
    finally:
        served.close()


@pytest.mark.parametrize("pool", POOLS)
def test_64_mixed_programs_give_the_same_alone_and_together(source: str, pool: str, alone: list[Any]) -> None:
    served = serve(source, POOLS[pool])
    together = threading.Barrier(PROGRAMS)

    def one(number: int) -> Any:
        together.wait(60)
        return run(served, number)

    try:
        with ThreadPoolExecutor(PROGRAMS) as threads:
            results = list(threads.map(one, range(PROGRAMS)))
        stats = served.loop.stats()
        settled(served)
        for number in range(PROGRAMS):
            assert results[number] == alone[number], f"{program(number).__name__} {number}"
        assert stats["sequences"] / stats["steps"] > 4
        if pool == "tight":
            assert stats["preemptions"] > 0
    finally:
        served.close()
