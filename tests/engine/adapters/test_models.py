"""Adapters on the real runner: logits equal those of transformers' model with the LoRA merged into its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from bakehouse.engine.adapters.base import AdapterStore, ZoParams
from bakehouse.engine.adapters.lora import LoraStore
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.runner.torch.runner import TorchRunner, create
from bakehouse.engine.spec import ModelSpec
from tests.engine import models
from tests.engine.adapters.folders import merge, random_lora, write_folder
from tests.engine.steps import Rows, Steps, step

PAGES = 67
#: Family to the modules that the test's adapter is on.
TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("k_proj", "o_proj", "up_proj"),
    "gemma2": ("q_proj", "down_proj"),
    "qwen3_moe": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "phi3": ("qkv_proj", "gate_up_proj"),
}

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a family's tiny model, made once."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = models.make_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


def serve(folder: Path, dtype: str = "fp32") -> tuple[TorchRunner, AdapterStore]:
    runner = create(ModelSpec(name="tiny", source=str(folder), dtype=dtype))
    runner.allocate(PAGES)
    assert runner.adapters is not None
    return runner, runner.adapters


def shapes(runner: TorchRunner, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    return {
        part.name: (linear.in_features, part.stop - part.start)
        for linear in runner.linears
        for part in linear.parts
        if part.name.endswith(targets)
    }


def reference(folder: Path, adapter: Path | None = None) -> PreTrainedModel:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    if adapter is not None:
        merge(model, adapter)
    result: PreTrainedModel = model.eval().requires_grad_(False)
    return result


def random_tokens(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()  # type: ignore[no-any-return]


def logits(runner: TorchRunner, *rows: Rows) -> Tensor:
    return runner.forward(step(rows)).logits.clone()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", TARGETS)
def test_logits_are_those_of_the_merged_model(family: str, folder: Folder, tmp_path: Path) -> None:
    runner, store = serve(folder(family))
    tensors = random_lora(shapes(runner, TARGETS[family]), 4, 1)
    adapter = write_folder(tmp_path / "a", tensors, r=4, lora_alpha=2)
    slot = store.create()
    store.load(slot, adapter)
    steps, tokens = Steps(PAGES), random_tokens(40, 2)
    with_adapter, without = steps.sequence(48), steps.sequence(48)
    ours = [
        logits(runner, Rows(with_adapter, part, adapter=slot), Rows(without, part))
        for part in (tokens[:33], tokens[33:39], tokens[39:])
    ]
    ids = torch.tensor([tokens])
    plain, merged = reference(folder(family))(ids).logits[0], reference(folder(family), adapter)(ids).logits[0]
    assert (plain - merged).abs().max() > 0.01
    close(torch.cat([part[: len(part) // 2] for part in ours]), merged)
    close(torch.cat([part[len(part) // 2 :] for part in ours]), plain)


def test_saved_by_us_it_merges_to_the_same_model(folder: Folder, tmp_path: Path) -> None:
    runner, store = serve(folder("llama"))
    adapter = write_folder(
        tmp_path / "a", random_lora(shapes(runner, ("q_proj", "down_proj")), 4, 1), r=4, lora_alpha=8, use_rslora=True
    )
    slot = store.create()
    store.load(slot, adapter)
    store.save(slot, tmp_path / "b")
    ids = torch.tensor([random_tokens(20, 0)])
    close(reference(folder("llama"), tmp_path / "b")(ids).logits, reference(folder("llama"), adapter)(ids).logits)


def test_a_batch_of_many_adapters_gives_each_what_it_gets_alone(folder: Folder, tmp_path: Path) -> None:
    """Prefill of one and decode of others in one step; two sequences have one adapter, and one has none."""
    runner, store = serve(folder("qwen3"))
    slots: list[int | None] = [None]
    for seed, targets in enumerate((("q_proj", "v_proj"), ("o_proj",), ("gate_proj", "down_proj"))):
        tensors = random_lora(shapes(runner, targets), 2 + seed, seed)
        slot = store.create()
        store.load(slot, write_folder(tmp_path / str(seed), tensors, r=2 + seed, lora_alpha=4))
        slots.append(slot)
    evolved = store.create()
    store.initialize_zo(evolved, ZoParams(rank=3, alpha=6, population=2, mu_fraction=0.5, sigma=0.2))
    store.update_zo(evolved, [1, 2], [1, 2], 0.0)
    slots += [slots[1], evolved]
    prompts = [random_tokens(5 + 7 * index, index) for index in range(len(slots))]

    def alone(which: int) -> list[Tensor]:
        sequence = Steps(PAGES).sequence(60)
        first = logits(runner, Rows(sequence, prompts[which], adapter=slots[which], read=[-1]))
        return [first, logits(runner, Rows(sequence, [7, 8], adapter=slots[which], read=[-1]))]

    expected = [alone(which) for which in range(len(slots))]
    steps = Steps(PAGES)
    sequences = [steps.sequence(60) for _ in slots]
    together = [Rows(s, p, adapter=a, read=[-1]) for s, p, a in zip(sequences, prompts, slots, strict=True)]
    first = logits(runner, *together[:3])
    decoding = [Rows(s, [7, 8], adapter=a, read=[-1]) for s, a in zip(sequences[:3], slots[:3], strict=True)]
    mixed = logits(runner, together[3], *decoding, *together[4:])
    last = logits(runner, *(Rows(sequences[k], [7, 8], adapter=slots[k], read=[-1]) for k in (5, 3, 4)))
    close(first, torch.cat([expected[k][0] for k in (0, 1, 2)]))
    close(mixed, torch.cat([expected[3][0], *(expected[k][1] for k in (0, 1, 2)), expected[4][0], expected[5][0]]))
    close(last, torch.cat([expected[k][1] for k in (5, 3, 4)]))


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_a_rounded_model_takes_the_same_difference(dtype: str, folder: Folder, tmp_path: Path) -> None:
    """With an adapter that is strong beside the rounding of the model's weights, its logits lean the same way."""
    exact, _ = serve(folder("llama"))
    runner, store = serve(folder("llama"), dtype)
    adapter = write_folder(
        tmp_path / "a", random_lora(shapes(exact, ("o_proj", "down_proj")), 4, 1), r=4, lora_alpha=12
    )
    slot = store.create()
    store.load(slot, adapter)
    tokens = random_tokens(24, 3)
    steps = Steps(PAGES)
    ours = logits(runner, Rows(steps.sequence(24), tokens, adapter=slot)) - logits(
        runner, Rows(steps.sequence(24), tokens)
    )
    ids = torch.tensor([tokens])
    theirs = reference(folder("llama"), adapter)(ids).logits[0] - reference(folder("llama"))(ids).logits[0]
    alike = torch.nn.functional.cosine_similarity(ours.float(), theirs, dim=-1)
    assert alike.mean() > 0.9


def test_modules_that_see_only_some_rows_are_refused(folder: Folder, tmp_path: Path) -> None:
    _, store = serve(folder("llama"))
    tensors = random_lora({"lm_head": (64, models.VOCABULARY)}, 2, 0)
    with pytest.raises(BadRequest, match="lm_head"):
        store.load(store.create(), write_folder(tmp_path / "a", tensors, r=2, lora_alpha=2))


def test_zo_is_refused_where_a_layer_has_no_q_k_and_v(folder: Folder) -> None:
    _, store = serve(folder("phi3"))
    with pytest.raises(BadRequest, match="q_proj"):
        store.initialize_zo(store.create(), ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.1))


def test_closing_the_runner_lets_go_of_the_weights(folder: Folder) -> None:
    runner, _ = serve(folder("llama"))
    runner.close()
    assert runner.adapters is None


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_zo_learns_to_prefer_a_token(dtype: str, folder: Folder) -> None:
    """The score of a candidate is the log-probability of one token after a prompt; all candidates share each step."""
    runner, store = serve(folder("llama"), dtype)
    assert isinstance(store, LoraStore)
    slot, prompt, wanted = store.create(), random_tokens(6, 1), 77
    population = 16
    store.initialize_zo(slot, ZoParams(rank=4, alpha=8, population=population, mu_fraction=0.5, sigma=0.08))

    def scores(seeds: list[int]) -> list[float]:
        steps = Steps(PAGES)
        plan = step([Rows(steps.sequence(len(prompt)), prompt, read=[-1], adapter=slot) for _ in seeds])
        for segment, seed in zip(plan.segments, seeds, strict=True):
            segment.zo_seed = seed
        return torch.log_softmax(runner.forward(plan).logits.float(), -1)[:, wanted].tolist()

    before = scores([0])[0]
    for generation in range(25):
        seeds = [1 + 1000 * generation + candidate for candidate in range(population)]
        store.update_zo(slot, scores(seeds), seeds, 0.2)
    mean, again = scores([0, 0])
    assert mean == pytest.approx(again, abs=1e-4)
    assert mean > before + 2
