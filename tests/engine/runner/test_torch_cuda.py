"""What the CUDA room does beside kernels, on the CPU: tables of steps, inputs of graphs, what no graph can hold.

The kernels' place is taken by torch over the same tables; `tests.engine.gpu` has the kernels themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bakehouse.engine.plan.step import Segment, StepPlan
from bakehouse.engine.runner.torch.attention import Heads, LayerKV
from bakehouse.engine.runner.torch.cuda.capture import blocker
from bakehouse.engine.runner.torch.cuda.graphs import Graphs, Limits, Outputs, Size, padded_rows
from bakehouse.engine.runner.torch.cuda.steps import DeviceSteps, device_steps
from bakehouse.engine.runner.torch.cuda.table import FEW, PlanTable, Table
from bakehouse.engine.runner.torch.runner import TorchRunner, create_with
from bakehouse.engine.spec import ModelSpec
from tests.engine.runner.conftest import PAGES
from tests.engine.runner.test_torch_families import TOLERANCE, run_cut, some_tokens
from tests.engine.steps import Rows, Steps, step

CPU = torch.device("cpu")
FolderOf = Callable[[str], Path]
EagerOf = Callable[[str], Any]


class TableStep:
    """A table read as the kernels read it, by torch, a tile at a time."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def write(self, layer: LayerKV, key: Tensor, value: Tensor) -> None:
        for row, slot in enumerate(self._table.slots.tolist()):
            if slot >= 0:
                here = slice(row, row + 1)
                layer.write(self._table.slots[here], key[here], value[here])

    def attend(self, layer: LayerKV, query: Tensor, heads: Heads) -> Tensor:
        assert layer.pool is not None
        assert heads.softcap is None and heads.sinks is None
        shape, group = layer.shape, query.shape[1] // layer.shape.heads
        out = torch.full((query.shape[0], query.shape[1], shape.value_dim), torch.nan)
        mask = self._table.mask(layer.window)
        for tiles, tile in ((self._table.few(2), 2), (self._table.many(5), 5)):
            for segment, first in zip(tiles.segments.tolist(), tiles.firsts.tolist(), strict=True) if tiles else ():
                start, count, history, pages = self._table.segments[:, segment].tolist()
                at = torch.arange(history + count)
                page = self._table.pages[pages + at // 16]
                rows = layer.pool[page * 16 + at % 16]
                keys = rows[:, : shape.key_width].view(len(at), shape.heads, -1).repeat_interleave(group, 1)
                values = rows[:, shape.key_width : shape.width].view(len(at), shape.heads, -1)
                here = torch.arange(first, min(first + tile, count))
                seen = at <= history + here[:, None]
                if layer.window is not None:
                    seen &= at > history + here[:, None] - layer.window
                if mask is not None and (begin := int(mask.starts[segment])) >= 0:
                    seen = mask.seen[begin : begin + count * len(at)].view(count, -1)[here] != 0
                out[start + here] = functional.scaled_dot_product_attention(
                    query[start + here].transpose(0, 1),
                    keys.transpose(0, 1),
                    values.repeat_interleave(group, 1).transpose(0, 1),
                    attn_mask=seen,
                    scale=heads.scale,
                ).transpose(0, 1)
        return out


def run_again(run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
    """In the place of a CUDA graph: the same calls, results into the same tensors."""
    outputs = run()

    def replay() -> None:
        for held, fresh in zip(outputs, run(), strict=True):
            held.copy_(fresh)

    return replay, outputs


@pytest.fixture
def tabled(folder: FolderOf) -> Callable[[str], tuple[TorchRunner, Graphs]]:
    def of(family: str) -> tuple[TorchRunner, Graphs]:
        runner = create_with(ModelSpec(name=family, source=str(folder(family)), dtype="fp32", device="cpu"), None)
        assert runner.device_steps is None, "on the CPU there are none"
        runner.device_steps = steps = DeviceSteps(TableStep, CPU)
        runner.use_graphs(run_again, 64)
        runner.allocate(PAGES)
        assert steps.graphs is not None
        return runner, steps.graphs

    return of


@pytest.mark.parametrize("family", ["llama", "mistral", "mixtral", "deepseek_v3"])
def test_tables_and_padded_steps_give_the_logits_of_eager(
    family: str, tabled: Callable[[str], tuple[TorchRunner, Graphs]], eager: EagerOf
) -> None:
    runner, graphs = tabled(family)
    tokens = some_tokens(3, 60)
    cuts = [[0, 60], [0, 30, 33, 34, 60], [0, 20, *range(21, 61)]]
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(runner, tokens, cuts)):
        assert (got - wanted[index]).abs().max() < TOLERANCE
    assert graphs.refused is None
    assert graphs.replayed == 40 - 2  # all that decode, but two beside chunks of another


def test_several_rows_are_filled_up_and_write_their_own_slots_only(
    tabled: Callable[[str], tuple[TorchRunner, Graphs]],
) -> None:
    runner, graphs = tabled("qwen3")
    steps = Steps(PAGES)
    sequences = [steps.sequence(20) for _ in range(5)]
    for layer in runner.layers:
        assert layer.pool is not None
        layer.pool.fill_(0.25)
    plan = step([Rows(sequence, [7 + i]) for i, sequence in enumerate(sequences)])
    plan.readouts = plan.readouts[3:1:-1]
    got = runner.forward(plan).logits.clone()
    assert graphs.replayed == 1
    for layer in runner.layers:
        assert layer.pool is not None
        changed = (layer.pool != 0.25).any(dim=1).nonzero().flatten().tolist()
        assert changed == sorted(sequence.pages[0] * 16 for sequence in sequences)
    assert runner.device_steps is not None
    runner.device_steps.graphs = None
    assert torch.allclose(runner.forward(plan).logits, got, atol=1e-5)


def test_explicit_masks_and_positions_are_in_the_table() -> None:
    plan = StepPlan([0] * 4, [5, 6, 30, 3])
    plan.segments = [
        Segment(0, 2, 3, [4], visible=[((0, 2),), ((1, 5),)]),
        Segment(2, 1, 2, [9], key_positions=[0, 9, 30]),
        Segment(3, 1, 3, [2]),
    ]
    table = PlanTable(plan, torch.zeros(4, dtype=torch.long))
    mask = table.mask(25)
    assert mask is not None
    assert mask.starts.tolist() == [0, 10, -1]
    assert mask.seen.tolist() == [1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1]
    assert table.segments.tolist() == [[0, 2, 3], [2, 1, 1], [3, 2, 3], [0, 1, 2]]
    assert table.pages.tolist() == [4, 9, 2]


def test_tiles_cover_each_row_once() -> None:
    counts = [1, FEW, FEW + 1, 40]
    plan = StepPlan([0] * sum(counts), list(range(sum(counts))))
    plan.segments = [Segment(sum(counts[:i]), count, 0, [0, 1, 2]) for i, count in enumerate(counts)]
    table = PlanTable(plan, torch.zeros(len(plan.tokens), dtype=torch.long))
    covered = []
    for tiles, tile in ((table.few(3), 3), (table.many(16), 16)):
        assert tiles is not None
        for segment, first in zip(tiles.segments.tolist(), tiles.firsts.tolist(), strict=True):
            covered += [(segment, row) for row in range(first, min(first + tile, counts[segment]))]
    assert sorted(covered) == [(segment, row) for segment, count in enumerate(counts) for row in range(count)]
    few = table.few(3)
    assert few is not None
    assert few.rows.tolist() == list(range(1 + FEW))


def test_sizes_are_few_and_never_too_small() -> None:
    sizes = [padded_rows(rows) for rows in range(1, 257)]
    assert all(size >= rows for rows, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 96, 128, 160, 192, 224, 256]


def test_a_size_takes_steps_in_any_order_of_segments_until_its_pages_do_not_fit() -> None:
    size = Size(4, Limits(rows=64, context=32, page_size=16), CPU)
    plan = StepPlan([11, 12, 13], [3, 17, 0])
    plan.segments = [Segment(2, 1, 0, [8]), Segment(0, 1, 3, [5, 6]), Segment(1, 1, 17, [7, 9, 1])]
    assert size.fill(plan, 16)
    assert size.tokens.tolist() == [11, 12, 13, 0]
    assert size.positions.tolist() == [3, 17, 0, 0]
    assert size.table.slots.tolist() == [5 * 16 + 3, 9 * 16 + 1, 8 * 16, -1]
    assert size.table.segments.tolist() == [[0, 1, 2, 3], [1, 1, 1, 1], [3, 17, 0, 0], [0, 1, 3, 0]]
    assert size.table.pages.tolist() == [5, 7, 9, 8, 0, 0, 0, 0]
    long = StepPlan([1], [200], [Segment(0, 1, 200, list(range(20)))])
    assert not size.fill(long, 16)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        torch.unique,
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: bool((x > 0).all()),
    ],
)
@torch.inference_mode()
def test_what_waits_for_the_device_or_comes_from_the_host_is_found(run: Callable[[Tensor], object]) -> None:
    assert blocker(lambda: run(torch.ones(2))) is not None


@torch.inference_mode()
def test_what_stays_on_the_device_is_let_through() -> None:
    x = torch.ones(4, 4)
    index = torch.arange(4)
    assert blocker(lambda: (x[index] @ x).softmax(-1).topk(2)[0].to(torch.float16)) is None


def test_a_capture_that_fails_turns_graphs_off(
    tabled: Callable[[str], tuple[TorchRunner, Graphs]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        raise RuntimeError("operation not permitted when stream is capturing")

    runner, _ = tabled("llama")
    wanted = runner.forward(step([Rows(Steps(PAGES).sequence(20), [5])])).logits.clone()
    runner.use_graphs(fail, 64)
    assert runner.device_steps is not None
    graphs = runner.device_steps.graphs
    assert graphs is not None
    assert torch.allclose(runner.forward(step([Rows(Steps(PAGES).sequence(20), [5])])).logits, wanted, atol=1e-6)
    assert graphs.refused is not None
    assert graphs.refused in caplog.text
    assert graphs.replayed == 0


def test_the_cpu_has_no_device_steps(folder: FolderOf) -> None:
    assert device_steps([], 16, CPU) is None
