"""The torch runner as the loop uses it: masks, copies, company, dtypes, results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import OutOfPages
from bakehouse.engine.params import GREEDY, Embedding
from bakehouse.engine.plan.step import Copy, Readout
from bakehouse.engine.runner.torch.runner import TorchRunner, create, create_with
from bakehouse.engine.spec import ModelSpec
from tests.engine.runner.conftest import PAGES
from tests.engine.runner.test_torch_families import TOLERANCE, run_cut, some_tokens
from tests.engine.steps import EMBED, Rows, Steps, step

RunnerOf = Callable[[str], TorchRunner]
EagerOf = Callable[[str], Any]
FolderOf = Callable[[str], Path]


def masked_eager(model: Any, tokens: Tensor, seen: Tensor) -> Tensor:
    """Logits of transformers' eager forward under an explicit mask ``[rows, keys]``."""
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        return model(tokens, attention_mask=mask, position_ids=torch.arange(tokens.shape[1])[None]).logits[0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3_moe"])
def test_explicit_masks_equal_eager(family: str, runner: RunnerOf, eager: EagerOf) -> None:
    """Windows with sinks, look-ahead within the pass, and holes, after an unmasked beginning and in decoding."""
    tokens = some_tokens(1, 60, seed=11)
    ranges: list[Ranges] = [((0, row + 1),) for row in range(20)]
    ranges += [((0, 2), (row - 6, row + 1)) for row in range(20, 40)]
    ranges += [((0, 60 if row < 50 else row + 1),) if row % 2 else ((5, 30), (row, row + 1)) for row in range(40, 60)]
    ranges[40:50] = [((0, 50),)] * 10
    seen = torch.zeros(60, 60, dtype=torch.bool)
    for row, parts in enumerate(ranges):
        for start, stop in parts:
            seen[row, start:stop] = True
    sequence = Steps(PAGES).sequence(60)
    got = []
    for start, stop in [(0, 20), (20, 40), (40, 50), *((row, row + 1) for row in range(50, 60))]:
        visible = None if start == 0 else ranges[start:stop]
        plan = step([Rows(sequence, tokens[0, start:stop].tolist(), visible=visible)])
        got.append(runner(family).forward(plan).logits.clone())
    assert (torch.cat(got) - masked_eager(eager(family), tokens, seen)).abs().max() < TOLERANCE


def test_positions_of_their_own_equal_eager(runner: RunnerOf, eager: EagerOf) -> None:
    tokens, positions = some_tokens(1, 30, seed=12), [*range(10), *range(40, 60)]
    with torch.inference_mode():
        wanted = eager("llama")(tokens, position_ids=torch.tensor([positions])).logits[0]
    sequence = Steps(PAGES).sequence(30)
    got = []
    for start, stop in [(0, 10), (10, 29), (29, 30)]:
        rows = Rows(sequence, tokens[0, start:stop].tolist(), positions[start:stop], key_positions=positions[:stop])
        got.append(runner("llama").forward(step([rows])).logits.clone())
    assert (torch.cat(got) - wanted).abs().max() < TOLERANCE


def test_copied_pages_continue_like_their_source(runner: RunnerOf) -> None:
    """A partial page copied, and that copy copied in the same step, before their rows run."""
    steps, model = Steps(PAGES), runner("qwen3")
    tokens = some_tokens(1, 24, seed=13)[0].tolist()
    parent, child, grandchild = (steps.sequence(40) for _ in range(3))
    model.forward(step([Rows(parent, tokens)]))
    for fork in (child, grandchild):
        fork.pages[0], fork.filled = parent.pages[0], 24
    plan = step([Rows(sequence, [7], read=[0]) for sequence in (child, grandchild, parent)])
    plan.copies = [Copy(parent.pages[1], child.pages[1], 8), Copy(child.pages[1], grandchild.pages[1], 8)]
    logits = model.forward(plan).logits
    assert torch.allclose(logits[0], logits[2], atol=1e-5)
    assert torch.allclose(logits[1], logits[2], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "mixtral"])
def test_tokens_do_not_depend_on_company(family: str, runner: RunnerOf) -> None:
    """The same prompt alone, among others that decode, and beside a long prefill."""
    prompt = some_tokens(1, 21, seed=14)[0].tolist()

    def generate(others: int) -> list[int]:
        steps = Steps(PAGES)
        mine, fed, out = steps.sequence(80), prompt, []
        company = [(steps.sequence(90), some_tokens(1, 90, seed=20 + i)[0].tolist()) for i in range(others)]
        for turn in range(40):
            rows = [Rows(mine, fed, read=[-1])]
            for index, (sequence, tokens) in enumerate(company):
                take = 23 if (turn + index) % 9 == 0 else 1
                chunk = tokens[sequence.filled : min(sequence.filled + take, 90)]
                if chunk:
                    rows.insert(index % 2, Rows(sequence, chunk, read=[-1]))
            plan = step(rows)
            row = next(i for i, s in enumerate(plan.segments) if s.pages is mine.pages)
            results = runner(family).sample(runner(family).forward(plan), plan.readouts)
            fed = [results[row].value]
            out.append(results[row].value)
        return out

    assert generate(0) == generate(5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_oss", "gemma3"])
def test_without_native_kernels_it_is_the_same(family: str, folder: FolderOf, eager: EagerOf) -> None:
    plain = create_with(ModelSpec(name=family, source=str(folder(family)), dtype="fp32"), None)
    plain.allocate(PAGES)
    tokens = some_tokens(2, 60, seed=15)
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(plain, tokens, [[0, 60], [0, 30, *range(31, 61)]])):
        assert (got - wanted[index]).abs().max() < TOLERANCE


@pytest.mark.parametrize(("dtype", "near"), [("bf16", 0.999), ("int8", 0.999), ("int4", 0.9), ("fp16", 0.9999)])
@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_other_dtypes_stay_near(family: str, dtype: str, near: float, folder: FolderOf, eager: EagerOf) -> None:
    small = create(ModelSpec(name=family, source=str(folder(family)), dtype=dtype))
    small.allocate(PAGES)
    tokens = some_tokens(2, 40, seed=16)
    with torch.inference_mode():
        wanted = eager(family)(tokens).logits
    for index, got in enumerate(run_cut(small, tokens, [[0, 40], [0, 20, *range(21, 41)]])):
        likeness = torch.cosine_similarity(got.float(), wanted[index], dim=-1)
        assert likeness.median() > near
    assert small.shape.dtype == dtype


def test_results_are_tokens_and_embeddings_in_order(runner: RunnerOf) -> None:
    tokens = some_tokens(1, 10, seed=17)[0].tolist()
    plan = step([Rows(Steps(PAGES).sequence(10), tokens, read=[])])
    plan.readouts = [Readout(9, GREEDY), Readout(4, EMBED), Readout(9, EMBED), Readout(4, GREEDY)]
    model = runner("llama")
    forwarded = model.forward(plan)
    results = [result.value for result in model.sample(forwarded, plan.readouts)]
    assert results[0] == int(forwarded.logits[0].argmax())
    assert results[3] == int(forwarded.logits[1].argmax())
    for index in (1, 2):
        assert isinstance(results[index], Embedding)
        assert np.allclose(np.frombuffer(results[index].data, "<f4"), forwarded.hidden[index].numpy(), atol=1e-6)
    assert model.sample(forwarded, plan.readouts)[0].value == results[0], "sampling twice changes nothing"


def test_a_step_without_readouts_only_writes(runner: RunnerOf) -> None:
    plan = step([Rows(Steps(PAGES).sequence(10), [1, 2, 3], read=[])])
    forwarded = runner("llama").forward(plan)
    assert runner("llama").sample(forwarded, []) == []


def test_shape_tells_what_planning_needs(runner: RunnerOf) -> None:
    shape = runner("qwen3").shape
    assert (shape.architecture, shape.vocab_size, shape.hidden_size, shape.layers) == ("Qwen3ForCausalLM", 512, 64, 2)
    assert (shape.max_context, shape.page_size, shape.dtype, shape.device) == (4096, 16, "fp32", "cpu")
    assert shape.page_bytes >= 2 * 2 * 2 * 32 * 16 * 4


def test_a_pool_that_does_not_fit_is_refused(folder: FolderOf) -> None:
    big = create(ModelSpec(name="m", source=str(folder("llama")), dtype="fp32"))
    with pytest.raises(OutOfPages, match="pages of 16 tokens need"):
        big.allocate(2**44)
    big.close()
    big.close()


def test_parts_of_linears_carry_the_models_names(runner: RunnerOf) -> None:
    parts = {part.name: part for linear in runner("llama").linears for part in linear.parts}
    assert parts["model.layers.1.self_attn.k_proj"].stop - parts["model.layers.1.self_attn.k_proj"].start == 64
    assert {"lm_head", "model.layers.0.mlp.up_proj", "model.layers.0.self_attn.o_proj"} <= parts.keys()


def test_an_adapter_on_a_part_changes_what_the_model_says(folder: FolderOf) -> None:
    model = create(ModelSpec(name="m", source=str(folder("llama")), dtype="fp32"))
    model.allocate(PAGES)
    tokens = [1, 2, 3]

    def logits() -> Tensor:
        return model.forward(step([Rows(Steps(PAGES).sequence(3), tokens)])).logits.clone()

    before = logits()
    for linear in model.linears:
        linear.adapter = lambda x, y: None
    assert torch.equal(logits(), before)
    for linear in model.linears:
        if linear.parts[0].name == "model.layers.0.mlp.down_proj":
            linear.adapter = lambda x, y: y.add_(1)
    assert not torch.allclose(logits(), before, atol=1e-2)


def test_families_that_share_the_pattern_run_on_stand_ins(runner: RunnerOf) -> None:
    """Else the stand-ins could be refused silently and the tests would say nothing of them."""
    native = runner("llama").native
    if native is None:
        pytest.skip("no native kernels on this machine")
    for family in ("llama", "qwen3", "mistral", "qwen3_moe"):
        assert [type(layer).__name__ for layer in runner(family).base.layers] == ["Layer", "Layer"], family
    assert type(runner("gemma2").base.norm).__name__ == "Norm"


def test_a_layer_in_one_call_is_the_same_bit_for_bit(folder: FolderOf) -> None:
    model = create(ModelSpec(name="m", source=str(folder("qwen3")), dtype="bf16"))
    model.allocate(PAGES)
    if not any(getattr(layer, "whole", None) for layer in model.base.layers):
        pytest.skip("no native products on this machine")

    def logits() -> Tensor:
        steps = Steps(PAGES)
        sequences = [steps.sequence(30) for _ in range(3)]
        plans = (
            step([Rows(sequence, [turn + index]) for index, sequence in enumerate(sequences)]) for turn in range(20)
        )
        return torch.cat([model.forward(plan).logits.clone() for plan in plans])

    together = logits()
    for linear in model.linears:
        linear.adapter = lambda x, y: None  # what makes a layer go call by call
    assert torch.equal(logits(), together)
