"""A served model put together: how large its pool is, what is refused, several in one engine."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bakehouse.engine import memory
from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel, pool_pages
from bakehouse.engine.runner.base import ModelShape
from bakehouse.engine.spec import ModelSpec

SPEC = ModelSpec(name="m", source="/models/m")
SHAPE = ModelShape(
    architecture="x",
    vocab_size=100,
    hidden_size=64,
    layers=2,
    max_context=1000,
    page_size=16,
    page_bytes=16 * 1024,
    dtype="bf16",
    device="cpu",
)


def test_the_pool_is_what_the_spec_says():
    assert pool_pages(replace(SPEC, kv_tokens=33), SHAPE) == 3
    assert pool_pages(replace(SPEC, kv_bytes=5 * 16 * 1024 + 7), SHAPE) == 5
    with pytest.raises(ModelRefused, match="holds no page"):
        pool_pages(replace(SPEC, kv_bytes=100), SHAPE)


def test_the_pool_is_a_share_of_free_memory_otherwise():
    pages = pool_pages(SPEC, SHAPE)
    free = memory.free_bytes("cpu")
    assert pages * SHAPE.page_bytes == pytest.approx(free / 4, rel=0.2)
    with pytest.raises(ModelRefused, match="set max_context"):
        pool_pages(SPEC, replace(SHAPE, page_bytes=free))
    assert pool_pages(ModelSpec(name="d", source="dummy"), replace(SHAPE, page_bytes=free)) > 1000


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "max\n", "memory.current": "400\n"}, 2**62),
        ({"memory/memory.limit_in_bytes": "700", "memory/memory.usage_in_bytes": "900"}, 0),
        ({}, 2**62),
    ],
)
def test_the_control_group_counts(files: dict[str, str], expected: int, tmp_path: Path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory._left_in_group(tmp_path) == expected


def test_a_model_that_is_refused_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(ModelRefused, match="holds no page"):
        ServedModel.load(ModelSpec(name="d", source="dummy", kv_bytes=1))
    assert threading.active_count() == before


async def test_several_models_in_one_engine():
    specs = [ModelSpec(name=name, source="dummy", seed=seed) for seed, name in enumerate(("a", "b"))]
    async with await Engine.start(specs) as engine:
        assert [info.name for info in await engine.models()] == ["a", "b"]
        async with await engine.open("a", "ada") as one, await engine.open("b", "ada") as two:
            assert one.model.name == "a" and two.model.name == "b"
            assert await two.lookup_context("x") is None
            await one.create_context("x")
            assert await two.lookup_context("x") is None
    await engine.close()


async def test_two_models_of_one_name_are_refused():
    before = threading.active_count()
    spec = ModelSpec(name="a", source="dummy")
    with pytest.raises(BadRequest, match="two models"):
        await Engine.start([spec, spec])
    assert threading.active_count() <= before + 1  # the event loop's own worker
