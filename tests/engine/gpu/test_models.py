"""Every family on CUDA against transformers' own eager forward in float32; graphs against steps without them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bakehouse.engine.plan.step import Copy
from bakehouse.engine.runner.torch.cuda.graphs import Graphs
from bakehouse.engine.runner.torch.runner import TorchRunner
from tests.engine import models
from tests.engine.adapters.folders import random_lora, write_folder
from tests.engine.gpu.conftest import HAS_GPU, PAGES, make_runner
from tests.engine.runner.test_torch_families import TOLERANCE, run_cut, some_tokens
from tests.engine.steps import EMBED, Rows, Sequence_, Steps, step

RunnerOf = Callable[[str], TorchRunner]
FolderOf = Callable[[str], Path]
EagerOf = Callable[[str], Any]

#: The interpreter takes minutes for all of them: windows, sinks, soft caps and two widths of heads are in these.
FAMILIES = list(models.FAMILIES) if HAS_GPU else ["qwen3", "gemma2", "gpt_oss", "deepseek_v3"]


def graphs_of(runner: TorchRunner) -> Graphs:
    assert runner.device_steps is not None
    assert runner.device_steps.graphs is not None
    return runner.device_steps.graphs


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_eager_in_any_chunking_and_mixture(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    tokens = some_tokens(3, 70)
    cuts = [[0, 70], [0, 30, 47, 48, 64, 70], [0, *range(60, 71)]]
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(runner(family), tokens, cuts)):
        assert (got.cpu() - wanted[index]).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES if HAS_GPU else ["qwen3"])
def test_greedy_tokens_and_embeddings_equal_eager(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    """Decoding by graphs: 256 tokens of two sequences, 12 in the interpreter."""
    model, count, prompts = runner(family), 256 if HAS_GPU else 12, some_tokens(2, 20, seed=5)
    steps = Steps(PAGES)
    sequences = [steps.sequence(20 + count) for _ in prompts]
    fed: list[list[int]] = [prompt.tolist() for prompt in prompts]
    ours: list[list[int]] = [[], []]
    before = graphs_of(model).replayed
    for _ in range(count):
        plan = step([Rows(sequence, tokens, read=[-1]) for sequence, tokens in zip(sequences, fed, strict=True)])
        best = [int(result.value) for result in model.sample(model.forward(plan), plan.readouts)]
        for index, token in enumerate(best):
            ours[index].append(token)
        fed = [[token] for token in best]
    assert graphs_of(model).refused is None
    assert graphs_of(model).replayed == before + count - 1
    chosen = torch.cat([prompts, torch.tensor(ours)], dim=1)
    reference = eager(family)
    with torch.inference_mode():
        assert reference(chosen).logits[:, 19:-1].argmax(dim=-1).tolist() == ours
        states = getattr(reference, reference.base_model_prefix)(chosen).last_hidden_state[:, -1]
    last = model.forward(step([Rows(s, [row[-1]], read=[0]) for s, row in zip(sequences, ours, strict=True)], EMBED))
    assert (last.hidden.cpu() - states).abs().max() < TOLERANCE
    assert last.logits.shape[0] == 0


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_a_graph_gives_what_the_step_gives(rows: int, folder: FolderOf) -> None:
    """Steps of several sizes, some of them filled up, readouts in any order, and one size again after another."""
    with_graphs, without = make_runner(folder("qwen3")), make_runner(folder("qwen3"), graphs=False)
    tokens = some_tokens(rows, 40, seed=6)

    def run(runner: TorchRunner) -> list[torch.Tensor]:
        steps, found = Steps(PAGES), []
        sequences = [steps.sequence(60) for _ in range(rows)]
        runner.forward(step([Rows(s, tokens[i, : 5 + 3 * i].tolist()) for i, s in enumerate(sequences)]))
        for turn in range(4):
            here = list(enumerate(sequences))[: rows if turn != 1 else 1]
            plan = step([Rows(s, [int(tokens[i, 30 + turn])]) for i, s in here])
            plan.readouts.reverse()
            found.append(runner.forward(plan).logits.clone())
        return found

    for got, wanted in zip(run(with_graphs), run(without), strict=True):
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() < 1e-5
    assert graphs_of(with_graphs).replayed == 4


def test_padding_rows_write_nothing(folder: FolderOf) -> None:
    """Three rows run as four; every slot that is not theirs stays as it was."""
    runner, steps = make_runner(folder("qwen3")), Steps(PAGES)
    sequences = [steps.sequence(20) for _ in range(3)]
    for layer in runner.layers:
        assert layer.pool is not None
        layer.pool.fill_(0.25)
    runner.forward(step([Rows(sequence, [7 + i]) for i, sequence in enumerate(sequences)]))
    own = [sequence.pages[0] * 16 for sequence in sequences]
    for layer in runner.layers:
        assert layer.pool is not None
        changed = (layer.pool != 0.25).any(dim=1).nonzero().flatten().tolist()
        assert sorted(changed) == sorted(own)
    assert graphs_of(runner).replayed == 1


def test_steps_with_more_than_decoding_run_without_a_graph(runner: RunnerOf) -> None:
    model, steps = runner("qwen3"), Steps(PAGES)
    first, second = steps.sequence(30), steps.sequence(30)
    before = graphs_of(model).replayed
    model.forward(step([Rows(first, [1, 2]), Rows(second, [3])]))
    model.forward(step([Rows(first, [4], visible=[((0, 1), (2, 3))])]))
    model.forward(step([Rows(second, [5], positions=[9], key_positions=[0, 9])]))
    assert graphs_of(model).replayed == before
    plan = step([Rows(first, [6])])
    plan.copies = [Copy(first.pages[0], second.pages[0], 3)]
    model.forward(plan)
    assert graphs_of(model).replayed == before + 1


def test_adapters_run_without_a_graph_and_leave_nothing_behind(folder: FolderOf, tmp_path: Path) -> None:
    runner = make_runner(folder("qwen3"))
    assert runner.adapters is not None
    parts = {p.name: (linear.in_features, p.stop - p.start) for linear in runner.linears for p in linear.parts}
    targets = {name: shape for name, shape in parts.items() if name.endswith(("q_proj", "down_proj"))}
    write_folder(tmp_path, random_lora(targets, 4, 1), r=4, lora_alpha=8)
    slot = runner.adapters.create()
    runner.adapters.load(slot, tmp_path)
    prompt = some_tokens(1, 8)[0].tolist()

    def decode(adapter: int | None) -> torch.Tensor:
        sequence = Steps(PAGES).sequence(20)
        runner.forward(step([Rows(sequence, prompt, adapter=adapter)]))
        return runner.forward(step([Rows(sequence, [9], adapter=adapter)])).logits.clone()

    plain = decode(None)
    assert graphs_of(runner).replayed == 1
    adapted = decode(slot)
    assert graphs_of(runner).replayed == 1
    assert (adapted - plain).abs().max() > 1e-2
    whole = runner.forward(step([Rows(Steps(PAGES).sequence(20), [*prompt, 9], adapter=slot)])).logits[-1]
    assert (adapted[0] - whole).abs().max() < TOLERANCE
    assert torch.equal(decode(None), plain)
    assert graphs_of(runner).replayed == 2


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_near(dtype: str, folder: FolderOf, eager: EagerOf) -> None:
    runner = make_runner(folder("qwen3"), dtype)
    tokens = some_tokens(2, 40, seed=16)
    with torch.inference_mode():
        wanted = eager("qwen3")(tokens).logits
    for index, got in enumerate(run_cut(runner, tokens, [[0, 40], [0, 34, *range(35, 41)]])):
        assert torch.cosine_similarity(got.cpu().float(), wanted[index], dim=-1).median() > 0.999


def test_a_model_that_no_graph_can_hold_runs_without(folder: FolderOf, caplog: pytest.LogCaptureFixture) -> None:
    runner = make_runner(folder("qwen3"))
    original = runner.base.forward

    def waits(**arguments: Any) -> Any:
        output = original(**arguments)
        output.last_hidden_state.sum().item()
        return output

    runner.base.forward = waits  # type: ignore[method-assign]
    sequence: Sequence_ = Steps(PAGES).sequence(20)
    with caplog.at_level(logging.WARNING):
        first = runner.forward(step([Rows(sequence, [5])])).logits.clone()
    assert "item" in (graphs_of(runner).refused or "") or "scalar" in (graphs_of(runner).refused or "")
    assert "without CUDA graphs" in caplog.text
    again = make_runner(folder("qwen3")).forward(step([Rows(Steps(PAGES).sequence(20), [5])])).logits
    assert (first - again).abs().max() < 1e-5
