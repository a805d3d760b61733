"""The page of limits names all of them, with their defaults."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.calls import adapters, guest

PAGE = Path(__file__).parents[3] / "docs" / "inferlet-limits.md"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def test_the_page_of_limits() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+)(?: (\w+))?", text, re.MULTILINE)
    told = {name: int(number.replace(",", "")) * UNITS.get(unit, 1) for name, number, unit in rows}
    assert told == asdict(Limits())
    for number in (PlanLimits(pages=1).max_left, adapters.MOST, adapters.SAVED, guest.MCP_SESSIONS):
        assert f" {number:,} " in text.partition("Some things")[2]
