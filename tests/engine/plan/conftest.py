"""Rigs: a planner on a fake device, checked and emptied when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.planner import Planner
from tests.engine.plan.fake import Rig

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    """``make_rig(pages=64, page_size=4, ...)``: afterwards everything is released and no page may be held."""
    rigs: list[Rig] = []

    def make(pages: int = 64, **limits: Any) -> Rig:
        rigs.append(Rig(Planner(PlanLimits(pages=pages, **{"page_size": 4, **limits}))))
        return rigs[-1]

    yield make
    for rig in rigs:
        planner = rig.planner
        if planner.running is not None:
            planner.commit(planner.running, rig.device.run(planner.running.plan), rig.now)
        rig.drain()
        planner.check_integrity()
        for context in list(planner.contexts.contexts.values()):
            planner.contexts.release(context)
        planner.check_integrity()
        assert planner.pages.held == 0
