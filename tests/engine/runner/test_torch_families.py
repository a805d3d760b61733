"""Every family against transformers' own eager forward, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bakehouse.engine.runner.torch.runner import TorchRunner
from tests.engine import models
from tests.engine.runner.conftest import PAGES
from tests.engine.steps import EMBED, Rows, Steps, step

TOLERANCE = 1e-4
RunnerOf = Callable[[str], TorchRunner]
EagerOf = Callable[[str], Any]

all_families = pytest.mark.parametrize("family", models.FAMILIES)


def some_tokens(sequences: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, models.VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(seed))


def run_cut(runner: TorchRunner, tokens: Tensor, cuts: list[list[int]], stride: int = 7) -> list[Tensor]:
    """Logits of every row, each sequence run in the chunks that its cuts make, all of them in the same steps."""
    steps = Steps(PAGES, stride=stride)
    sequences = [steps.sequence(tokens.shape[1]) for _ in cuts]
    logits: list[list[Tensor]] = [[] for _ in cuts]
    for turn in range(max(len(cut) for cut in cuts) - 1):
        rows, owners = [], []
        for index, cut in enumerate(cuts):
            if turn + 1 < len(cut):
                chunk = tokens[index, cut[turn] : cut[turn + 1]].tolist()
                rows.append(Rows(sequences[index], chunk))
                owners += [index] * len(chunk)
        for owner, row in zip(owners, runner.forward(step(rows)).logits, strict=True):
            logits[owner].append(row.clone())  # the next step may write over it
    return [torch.stack(rows) for rows in logits]


@all_families
def test_logits_equal_eager_in_any_chunking_and_mixture(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    """Whole prompts, chunks across page and window borders, and decoding, in one batch; windows are 24 wide."""
    tokens = some_tokens(4, 100)
    cuts = [[0, 100], [0, 30, 47, 48, 64, 90, 99, 100], [0, *range(50, 101)], [0, 16, 32, *range(33, 80), 100]]
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(runner(family), tokens, cuts)):
        assert (got - wanted[index]).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_consecutive_pages_give_the_same(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    tokens = some_tokens(2, 70, seed=3)
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(runner(family), tokens, [[0, 70], [0, 40, *range(41, 71)]], stride=1)):
        assert (got - wanted[index]).abs().max() < TOLERANCE


@all_families
def test_256_greedy_tokens_equal_eager(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    prompts = some_tokens(2, 20, seed=5)
    steps = Steps(PAGES)
    sequences = [steps.sequence(276) for _ in prompts]
    fed: list[list[int]] = [prompt.tolist() for prompt in prompts]
    ours: list[list[int]] = [[], []]
    ours_best: list[list[float]] = [[], []]
    for _ in range(256):
        rows = [Rows(sequence, tokens, read=[-1]) for sequence, tokens in zip(sequences, fed, strict=True)]
        logits = runner(family).forward(step(rows)).logits
        best = logits.argmax(dim=-1).tolist()
        for index, token in enumerate(best):
            ours[index].append(token)
            ours_best[index].append(float(logits[index, token]))
        fed = [[token] for token in best]
    # One eager pass over what we chose is the same as 256 eager steps as long as each choice is its best too.
    chosen = torch.cat([prompts, torch.tensor(ours)], dim=1)
    with torch.inference_mode():
        wanted = eager(family)(chosen).logits[:, 19:-1]
    assert wanted.argmax(dim=-1).tolist() == ours
    assert (wanted.amax(dim=-1) - torch.tensor(ours_best)).abs().max() < TOLERANCE


@all_families
def test_embeddings_are_the_final_normalised_states(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    tokens = some_tokens(1, 40, seed=7)
    model = eager(family)
    with torch.inference_mode():
        wanted = getattr(model, model.base_model_prefix)(tokens).last_hidden_state[0]
    forwarded = runner(family).forward(step([Rows(Steps(PAGES).sequence(40), tokens[0].tolist())], EMBED))
    assert (forwarded.hidden - wanted).abs().max() < TOLERANCE
    assert forwarded.logits.shape[0] == 0


def test_windows_are_read_from_the_models_masks(runner: RunnerOf) -> None:
    windows = {family: [layer.window for layer in runner(family).layers] for family in ("mistral", "gemma3", "llama")}
    assert windows == {"mistral": [24, 24], "gemma3": [24, None], "llama": [None, None]}


def test_only_read_rows_cost_logits(runner: RunnerOf) -> None:
    tokens = some_tokens(1, 30)[0].tolist()
    plan = step([Rows(Steps(PAGES).sequence(30), tokens, read=[29, 3])])
    whole = step([Rows(Steps(PAGES).sequence(30), tokens)])
    few, all_ = runner("llama").forward(plan).logits.clone(), runner("llama").forward(whole).logits
    assert few.shape[0] == 2
    assert torch.allclose(few, all_[[29, 3]], atol=1e-5)
