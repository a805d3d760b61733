"""The whole engine on CUDA: programs of every kind together and alone, in a pool with room and in a tight one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.model import ServedModel
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine.models import make_model
from tests.engine.session.mix import program
from tests.engine.session.support import settled

pytestmark = pytest.mark.device_only

PROGRAMS = 64


def serve(folder: str, tokens: int) -> ServedModel:
    served = ServedModel.load(
        ModelSpec(name="mix", source=folder, kv_tokens=tokens, max_context=4096, dtype="fp32", device="cuda")
    )
    with Session(served, "baker") as session:
        for number in range(2):
            adapter = session.create_adapter(f"bread-{number}").result(60)
            session.initialize_zo(adapter, ZoParams(4, 8.0, 4, 0.5, 0.05)).result(60)
            session.update_zo(adapter, [1.0, 2.0, 3.0, 4.0], [5 + number, 6, 7, 8]).result(60)
    return served


def run(served: ServedModel, number: int) -> Any:
    with Session(served, f"owner-{number % 5}", f"program-{number}") as session:
        return program(number)(session, number)


@pytest.mark.parametrize("tokens", [40_000, 1_600])
def test_64_mixed_programs_give_the_same_alone_and_together(tokens: int, tmp_path_factory: Any) -> None:
    """The tight pool puts contexts aside again and again, and they are computed anew."""
    folder = str(make_model(tmp_path_factory.mktemp("model"), "qwen3"))
    quiet = serve(folder, 40_000)
    try:
        alone = [run(quiet, number) for number in range(PROGRAMS)]
    finally:
        quiet.close()
    served, together = serve(folder, tokens), threading.Barrier(PROGRAMS)

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
        if tokens < 2_000:
            assert stats["preemptions"] > 0
    finally:
        served.close()
