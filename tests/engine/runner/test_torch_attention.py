"""Paged attention against the formula: windows, sinks, soft caps, masks, positions; native kernels and torch's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bakehouse.engine.brle import Ranges
from bakehouse.engine.plan.step import Segment, StepPlan
from bakehouse.engine.runner.torch.attention import LayerKV, Now, paged
from bakehouse.engine.runner.torch.batch import Batch
from bakehouse.engine.runner.torch.kv import KVPool, KVShape
from bakehouse.engine.runner.torch.native import Native, load
from tests.engine.steps import Steps

PAGES = 53
PAGE = 16
CPU = torch.device("cpu")


def reference(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """*q* ``[rows, heads, dim]``, *k* and *v* ``[keys, key heads, dim]``, *seen* ``[rows, keys]``, in float64."""
    group = q.shape[1] // k.shape[1]
    k, v, q = (x.double() for x in (k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), q))
    scores = torch.einsum("rhd,khd->hrk", q, k) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, q.shape[0], 1)], dim=-1)
    weights = torch.nan_to_num(scores.softmax(dim=-1))[..., : k.shape[0]]
    return torch.einsum("hrk,khd->rhd", weights, v).float()


@dataclass
class Run:
    """One sequence of a step: its history, its rows, and how they see."""

    history: int
    count: int
    visible: list[Ranges] | None = None
    key_positions: list[int] | None = None


def seen_by(run: Run, positions: list[int], window: int | None) -> Tensor:
    total = run.history + run.count
    seen = torch.zeros(run.count, total, dtype=torch.bool)
    held = run.key_positions or list(range(total))
    for row in range(run.count):
        ranges = run.visible[row] if run.visible else ((0, run.history + row + 1),)
        for start, stop in ranges:
            seen[row, start:stop] = True
        if window is not None:
            seen[row] &= torch.tensor(held) > positions[row] - window
    return seen


def check(
    runs: list[Run],
    *,
    native: Native | None,
    window: int | None = None,
    softcap: float | None = None,
    with_sinks: bool = False,
    heads: tuple[int, int, int] = (4, 2, 64),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> None:
    query_heads, key_heads, dim = heads
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    shape = KVShape(key_heads, dim, dim)
    layer = LayerKV(shape, window, Now())
    layer.native = native
    layer.pool = KVPool([shape], PAGES, PAGE, dtype, CPU).layers[0]
    layer.pool.fill_(3.0)  # what nobody may read
    steps, plan, keys, values = Steps(PAGES), StepPlan(), [], []
    for run in runs:
        total = run.history + run.count
        pages = steps.sequence(total).pages
        k, v = random(total, key_heads, dim), random(total, key_heads, dim)
        slots = torch.tensor([pages[s // PAGE] * PAGE + s % PAGE for s in range(run.history)], dtype=torch.long)
        layer.write(slots, k[: run.history], v[: run.history])
        held = run.key_positions or range(total)
        plan.segments.append(Segment(len(plan.tokens), run.count, run.history, pages, run.visible, run.key_positions))
        plan.tokens += [0] * run.count
        plan.positions += list(held)[run.history :]
        keys.append(k)
        values.append(v)
    prefills = native is not None and native.prefills(dtype, dim)
    batch = Batch(plan, PAGE, shape.stride * dtype.itemsize, dtype, CPU, native is not None, prefills)
    q, sinks = random(len(plan.tokens), query_heads, dim), random(query_heads) if with_sinks else None
    new = [torch.cat([x[run.history :] for x, run in zip(all_, runs, strict=True)]) for all_ in (keys, values)]
    got = paged(layer, batch, q, new[0], new[1], 0.2, softcap, sinks)
    for run, segment, k, v in zip(runs, plan.segments, keys, values, strict=True):
        here = slice(segment.start, segment.start + segment.count)
        wanted = reference(q[here], k, v, seen_by(run, plan.positions[here], window), 0.2, softcap, sinks)
        close = 1e-5 if dtype == torch.float32 else 2e-2
        assert (got[here].float() - wanted).abs().max() < close


kernels = pytest.mark.parametrize("native", [None, pytest.param(load(), id="native")])


def mask_of(count: int, total: int) -> st.SearchStrategy[list[Ranges]]:
    edges = st.lists(st.integers(0, total), min_size=2, max_size=6).map(sorted)
    ranges = edges.map(lambda e: tuple((a, b) for a, b in zip(e[::2], e[1::2], strict=False) if a < b))
    return st.lists(ranges, min_size=count, max_size=count)


@st.composite
def some_runs(draw: st.DrawFn) -> list[Run]:
    runs = []
    for _ in range(draw(st.integers(1, 5))):
        history, count = draw(st.integers(0, 70)), draw(st.sampled_from([1, 1, 1, 2, 5, 9, 33]))
        kind = draw(st.sampled_from(["causal", "causal", "masked", "positioned"]))
        visible = draw(mask_of(count, history + count)) if kind == "masked" else None
        positions = None
        if kind == "positioned":
            jumps = draw(st.lists(st.integers(0, 4), min_size=history + count, max_size=history + count))
            positions = [sum(jumps[: i + 1]) for i in range(history + count)]
        runs.append(Run(history, count, visible, positions))
    return runs


@kernels
@settings(max_examples=30, deadline=None)
@given(
    runs=some_runs(),
    window=st.sampled_from([None, None, 1, 7, 40]),
    softcap=st.sampled_from([None, 5.0]),
    with_sinks=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_mixture_equals_the_formula(
    native: Native | None, runs: list[Run], window: int | None, softcap: float | None, with_sinks: bool, seed: int
) -> None:
    check(runs, native=native, window=window, softcap=softcap, with_sinks=with_sinks, seed=seed)


@kernels
@pytest.mark.parametrize("group", range(1, 9))
@pytest.mark.parametrize("dim", [64, 128])
def test_every_group_of_heads(native: Native | None, group: int, dim: int) -> None:
    runs = [Run(37, 1), Run(0, 1), Run(100, 3), Run(15, 20)]
    check(runs, native=native, heads=(group * 3, 3, dim))


@kernels
@pytest.mark.parametrize(("group", "dim"), [(2, 128), (4, 256), (2, 32), (7, 64), (1, 128)])
@pytest.mark.parametrize("window", [None, 20, 150])
@pytest.mark.parametrize(("softcap", "with_sinks"), [(None, False), (5.0, False), (None, True)])
def test_bfloat16(
    native: Native | None, group: int, dim: int, window: int | None, softcap: float | None, with_sinks: bool
) -> None:
    """Prompts of one tile and of many, with and without a history, across blocks of keys."""
    runs = [Run(200, 1), Run(31, 1), Run(0, 40), Run(130, 150), Run(5, 9), Run(40, 20, [((0, 30),)] * 20)]
    check(
        runs,
        native=native,
        heads=(group * 2, 2, dim),
        dtype=torch.bfloat16,
        window=window,
        softcap=softcap,
        with_sinks=with_sinks,
    )


@kernels
def test_many_key_heads(native: Native | None) -> None:
    check([Run(50, 1), Run(20, 2)], native=native, heads=(22, 11, 64))


@kernels
def test_a_row_that_sees_nothing_gives_nothing(native: Native | None) -> None:
    check([Run(5, 2, [(), ((0, 3),)])], native=native)
