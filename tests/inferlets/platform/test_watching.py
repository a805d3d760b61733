"""A model that cannot be read is said once, and the next ones are served all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import ModelSpec
from bakehouse.wiring import watching as room
from bakehouse.wiring.models import Models


async def test_what_cannot_be_read_keeps_no_other_from_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    said: list[str] = []
    served = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        if "served now" in line:
            served.set()

    (tmp_path / "models" / "a.toml").mkdir(parents=True)
    engine = await Engine.start([])
    try:
        async with room.watching(tmp_path, engine, say), asyncio.timeout(20):
            Models(tmp_path).add(ModelSpec(name="b", source="dummy"))
            await served.wait()
    finally:
        await engine.close()
    assert [info.name for info in engine.served()] == ["b"]
    assert said == [said[0], "the model b is served now"]
    assert "the model a cannot be served: IsADirectoryError" in said[0]
