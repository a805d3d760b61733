"""The Triton kernels against the formula: parts, windows, sinks, soft caps, masks, positions, every shape of heads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bakehouse.engine.plan.step import StepPlan
from bakehouse.engine.runner.torch.attention import LayerKV, Now, paged
from bakehouse.engine.runner.torch.batch import Batch
from bakehouse.engine.runner.torch.cuda.table import PlanTable
from bakehouse.engine.runner.torch.kv import KVPool, KVShape
from tests.engine.gpu.conftest import HAS_GPU, WHERE
from tests.engine.runner.test_torch_attention import Run, reference, seen_by, some_runs
from tests.engine.steps import Segment, Steps

PAGES = 211
PAGE = 16
CLOSE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Shape:
    query_heads: int = 4
    key_heads: int = 2
    key_dim: int = 32
    value_dim: int = 32


def check(
    runs: list[Run],
    shape: Shape = Shape(),
    *,
    window: int | None = None,
    softcap: float | None = None,
    with_sinks: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    page_size: int = PAGE,
) -> None:
    """One step of *runs* through the kernels, each row against the formula in float64."""
    from bakehouse.engine.runner.torch.cuda.paged import PagedStep

    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator).to(dtype)

    kv = KVShape(shape.key_heads, shape.key_dim, shape.value_dim)
    layer = LayerKV(kv, window, Now())
    layer.pool = KVPool([kv], PAGES, page_size, dtype, WHERE).layers[0]
    layer.pool.fill_(3.0)  # what nobody may read
    steps, plan, keys, values = Steps(PAGES, page_size), StepPlan(), [], []
    for run in runs:
        total = run.history + run.count
        pages = steps.sequence(total).pages
        k, v = random(total, shape.key_heads, shape.key_dim), random(total, shape.key_heads, shape.value_dim)
        slots = [pages[slot // page_size] * page_size + slot % page_size for slot in range(run.history)]
        old = torch.tensor(slots, dtype=torch.long, device=WHERE)
        layer.write(old, k[: run.history].to(WHERE), v[: run.history].to(WHERE))
        held = run.key_positions or range(total)
        plan.segments.append(Segment(len(plan.tokens), run.count, run.history, pages, run.visible, run.key_positions))
        plan.tokens += [0] * run.count
        plan.positions += list(held)[run.history :]
        keys.append(k)
        values.append(v)
    batch = Batch(plan, page_size, kv.stride * dtype.itemsize, dtype, WHERE)
    batch.on_device = PagedStep(PlanTable(plan, batch.slots), page_size)
    q = random(len(plan.tokens), shape.query_heads, shape.key_dim)
    sinks = random(shape.query_heads) if with_sinks else None
    new = [torch.cat([x[run.history :] for x, run in zip(all_, runs, strict=True)]) for all_ in (keys, values)]
    # As layers hand them over: heads before rows.
    given = [x.to(WHERE).transpose(0, 1).contiguous().transpose(0, 1) for x in (q, *new)]
    got = paged(layer, batch, *given, 0.2, softcap, None if sinks is None else sinks.to(WHERE)).cpu()
    for run, segment, k, v in zip(runs, plan.segments, keys, values, strict=True):
        here = slice(segment.start, segment.start + segment.count)
        wanted = reference(q[here], k, v, seen_by(run, plan.positions[here], window), 0.2, softcap, sinks)
        assert (got[here].float() - wanted).abs().max() < CLOSE[dtype]


@settings(max_examples=100 if HAS_GPU else 12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    runs=some_runs(),
    window=st.sampled_from([None, None, 1, 7, 40]),
    softcap=st.sampled_from([None, 5.0]),
    with_sinks=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_mixture_equals_the_formula(
    runs: list[Run], window: int | None, softcap: float | None, with_sinks: bool, seed: int
) -> None:
    check(runs, window=window, softcap=softcap, with_sinks=with_sinks, seed=seed)


@pytest.mark.parametrize("history", [254, 255, 256, 257, 511, 900, 1500])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_keys_in_parts(history: int, with_sinks: bool) -> None:
    """One row and a few, around the borders of parts, beside a sequence that needs none."""
    check([Run(history, 1), Run(3, 1), Run(history // 2, 4)], with_sinks=with_sinks)


@pytest.mark.parametrize("window", [200, 300, 700])
def test_windows_across_parts(window: int) -> None:
    check([Run(1000, 1), Run(600, 3), Run(640, 20)], window=window, softcap=4.0)


def test_a_mask_across_parts() -> None:
    holes = ((0, 2), (100, 300), (650, 701))
    check([Run(700, 2, [holes, ((650, 702),)]), Run(20, 1, [((3, 9), (20, 21))])], with_sinks=True)


def test_rows_that_look_ahead_and_rows_that_see_nothing() -> None:
    check([Run(5, 3, [(), ((0, 8),), ((7, 8),)]), Run(0, 12, [((0, 12),)] * 12)])


@pytest.mark.parametrize(
    "shape",
    [
        Shape(1, 1, 64, 64),
        Shape(3, 3, 16, 16),
        Shape(6, 2, 24, 40),
        Shape(10, 2, 80, 80),
        Shape(16, 1, 192, 128),
        Shape(40, 2, 32, 32),
        Shape(4, 2, 256, 256),
    ],
    ids=str,
)
def test_shapes_of_heads(shape: Shape) -> None:
    check([Run(37, 1), Run(0, 20), Run(290, 1), Run(15, 3)], shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", [None, 150])
def test_half_precision(dtype: torch.dtype, window: int | None) -> None:
    check([Run(300, 1), Run(60, 20), Run(0, 40)], dtype=dtype, window=window, with_sinks=True)


@pytest.mark.parametrize("page_size", [1, 8, 32])
def test_other_page_sizes(page_size: int) -> None:
    check([Run(50, 1), Run(10, 20)], page_size=page_size)


def test_a_row_does_not_depend_on_its_company() -> None:
    """To the bit: a row alone, and beside rows that need more parts."""
    from bakehouse.engine.runner.torch.cuda.paged import PagedStep

    kv = KVShape(2, 32, 32)
    layer = LayerKV(kv, None, Now())
    layer.pool = torch.randn(PAGES * PAGE, kv.stride, generator=torch.Generator().manual_seed(3)).to(WHERE)
    steps = Steps(PAGES)
    histories = (300, 20, 1500)
    pages = [steps.sequence(history + 1).pages for history in histories]
    q = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(4)).to(WHERE)

    def attend(chosen: list[int]) -> torch.Tensor:
        plan = StepPlan([0] * len(chosen), [histories[i] for i in chosen])
        plan.segments = [Segment(at, 1, histories[i], pages[i]) for at, i in enumerate(chosen)]
        batch = Batch(plan, PAGE, kv.stride * 4, torch.float32, WHERE)
        from bakehouse.engine.runner.torch.attention import Heads

        return PagedStep(PlanTable(plan, batch.slots), PAGE).attend(layer, q[chosen], Heads(0.2, None, None))

    together = attend([0, 1, 2])
    for index in range(3):
        assert torch.equal(attend([index])[0], together[index])
