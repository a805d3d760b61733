"""The agentic benchmark: both sides say the same, and its tables say what each technique brings."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inferlet
import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.calls.native import open_native
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.messaging import LocalMessaging
from benchmarks.inferlets import agents, report, stateless
from benchmarks.inferlets.agents.work.workloads import STAGES, WORKLOADS, parts, pieces, plain, rehearse
from tests.inferlets.sdk.support import Alone, Seen

AGENTS = Path(agents.__path__[0])


@pytest.fixture(scope="module")
def served() -> Iterator[ServedModel]:
    model = ServedModel.load(ModelSpec(name="dummy", source="dummy"))
    yield model
    model.close()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The program's own module, which finds its folder as it does in a component."""
    monkeypatch.syspath_prepend(AGENTS)

    def own() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("main", "work")]

    for name in own():  # of other programs, in tests before this one
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("main")
    for name in own():
        del sys.modules[name]


@pytest.mark.parametrize("workload", WORKLOADS)
async def test_both_sides_say_the_same(workload: str, served: ServedModel, program: Any) -> None:
    expected = sum(len(plain(marked).encode()) for marked in await rehearse(workload))
    begun = served.loop.stats()["sequences"]
    assert await stateless.run(Engine([served]), "dummy", workload, 7) == expected
    resent = served.loop.stats()["sequences"]
    asked = {"workload": workload, "agent": 7, "stage": WORKLOADS[workload].stages[-1]}
    services = Alone(LocalMessaging(), ConfiguredMcp([]))
    with open_native(Engine([served]), owner="ada", services=services, outlet=Seen()) as host, inferlet.connect(host):
        assert int(await program.main(asked)) == expected
    assert served.loop.stats()["sequences"] - resent < (resent - begun) * 0.7


async def test_scripts_are_marked_so_that_a_program_can_follow_them() -> None:
    said = [marked for workload in WORKLOADS for marked in await rehearse(workload)]
    for marked in said:
        assert re.sub("‹[^‹›«»]+›|«[^‹›«»]+»", "", marked) == "".join(
            p.text for p in parts(marked) if p.kind == "known"
        )
        assert marked.count("####") == marked.replace("####", "0001").count("0001")
        for stage in STAGES:
            found = pieces(marked, stage)
            assert "".join(text for _, text, _ in found) == plain(marked)
            assert not any(stop and stop in text for _, text, stop in found)
    words = {part.text for marked in said for part in parts(marked) if part.kind == "choice"}
    assert len(words) > 10


def test_pieces_end_where_the_text_goes_on() -> None:
    marked = '{"tool": "«track»", "kilograms": ‹12›, "sum": ‹3 + 4› = 7}'
    assert pieces(marked, "contexts") == [("free", plain(marked), "")]
    assert pieces(marked, "known") == [
        ("known", '{"tool": "', ""),
        ("choice", "t", ""),
        ("known", "rack", ""),
        ("known", '", "kilograms": ', ""),
        ("free", "12", ","),
        ("known", ', "sum": ', ""),
        ("free", "3 + 4", " ="),
        ("known", " = 7}", ""),
    ]


def figures(seconds: float, drafted: int = 0, rejected: int = 0, said: int = 100) -> dict[str, float]:
    counts = {"agents": 1, "said": said, "rows": 300, "steps": 50}
    return {**counts, "seconds": seconds, "plan_drafted": drafted, "plan_rejected": rejected}


def run_of(**sides: dict[str, float]) -> dict[str, Any]:
    return {"figures": {}, "agents": {"on": {"work": {name: [at] for name, at in sides.items()}}}}


def test_each_technique_is_told_by_itself() -> None:
    run = run_of(
        stateless=figures(12.0),
        contexts=figures(10.0),
        known=figures(8.0),
        drafts=figures(5.0, drafted=40, rejected=10),
    )
    ((title, _, rows),) = report.sections(run)
    assert "prefix cache on" in title
    assert [row[4:6] for row in rows] == [["1.00", ""], ["1.20", "1.20"], ["1.50", "1.25"], ["2.40", "1.60"]]
    assert [row[8:10] for row in rows] == [["0", ""], ["0", ""], ["0", ""], ["40", "75%"]]


def test_a_single_stage_is_all_of_them() -> None:
    ((_, _, rows),) = report.sections(run_of(stateless=figures(12.0), drafts=figures(3.0)))
    assert rows[1][2:6] == ["programs, with all of that", "3.00", "4.00", ""]


def test_sides_that_said_different_things_are_no_result() -> None:
    with pytest.raises(ValueError, match="did not say as much"):
        report.sections(run_of(stateless=figures(2.0), contexts=figures(1.0, said=99)))
