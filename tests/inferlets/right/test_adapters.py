"""Adapters and zo through the guest's SDK on a tiny real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from inferlet import Adapter, Context, ForwardPass, Model, Sampler, zo
from transformers import AutoModelForCausalLM

from tests.engine.adapters.folders import merge, random_lora, write_folder
from tests.engine.adapters.test_models import shapes
from tests.engine.tiny import quiet
from tests.inferlets.right.conftest import Connect
from tests.inferlets.right.support import NEVER, Served, assert_greedy, dense, some_tokens

EagerOf = Callable[[str], Any]
Make = Callable[[str], Adapter]
PROMPT = some_tokens(33, seed=5)


@pytest.fixture
def make(model: Model) -> Iterator[Make]:
    """Adapters with an optimiser, taken away afterwards: their names are the model's."""
    made: list[Adapter] = []

    def of(name: str, population: int = 6, sigma: float = 0.15) -> Adapter:
        adapter = Adapter.create(model, name)
        made.append(adapter)
        zo.initialize(adapter, 4, 8.0, population, 0.5, sigma)
        return adapter

    yield of
    for adapter in made:
        adapter.remove()


def chosen(model: Model, adapter: Adapter | None, seed: int = 0, count: int = 30) -> list[int]:
    with Context(model, fill=PROMPT) as ctx:
        given: dict[str, Any] = {"max_tokens": count, "auto_flush": False, "stop_tokens": NEVER}
        if adapter is not None:
            given |= {"adapter": adapter, "zo_seed": seed}
        return ctx.generate(Sampler.greedy(), **given).tokens()


def likely(model: Model, adapter: Adapter, seed: int = 0) -> Any:
    step = ForwardPass(model).input_tokens(PROMPT).sampler([len(PROMPT) - 1], Sampler.dist())
    step.adapter(adapter)
    zo.adapter_seed(step, seed)
    return dense(step.execute().value[0])


def test_seed_nought_is_the_mean_and_a_seed_is_one_candidate(model: Model, make: Make, eager: EagerOf) -> None:
    """Fresh weights change nothing without noise; a seed gives the same each time, and other seeds something else."""
    adapter = make("fresh")
    plain = chosen(model, None)
    assert_greedy(eager("qwen3"), PROMPT, plain)
    assert chosen(model, adapter) == plain
    seeds = [1, 2, -1, 12345, -(2**31) - 5]
    candidates = [chosen(model, adapter, seed) for seed in seeds]
    assert [chosen(model, adapter, seed) for seed in seeds] == candidates
    assert len({tuple(tokens) for tokens in [plain, *candidates]}) == 6


def test_a_quadratic_toy_improves(model: Model, make: Make) -> None:
    """The score is minus the square of how far one token's log-probability is from a goal."""
    adapter, population, token, goal = make("quadratic", 12, 0.05), 12, 77, -1.0

    def score(seed: int) -> float:
        return -((log(float(likely(model, adapter, seed)[token])) - goal) ** 2)

    before = score(0)
    for number in range(6):
        seeds = [1 + number * population + member for member in range(population)]
        zo.update(adapter, [score(seed) for seed in seeds], seeds, 0.0)
    assert before < -4
    assert score(0) > before / 2


def test_an_update_needs_the_whole_population(model: Model, make: Make) -> None:
    adapter = make("short")
    with pytest.raises(ValueError, match="6"):
        zo.update(adapter, [1.0], [1], 0.0)


def trained(model: Model, make: Make, name: str) -> Adapter:
    adapter = make(name)
    zo.update(adapter, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 2, 3, 4, 5, 6], 0.0)
    assert chosen(model, adapter) != chosen(model, None)
    return adapter


def test_a_clone_has_weights_of_its_own(model: Model, make: Make) -> None:
    first = trained(model, make, "rye")
    copy = first.clone("rye-2")
    before = chosen(model, copy)
    assert before == chosen(model, first)
    zo.update(first, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [11, 12, 13, 14, 15, 16], 0.0)
    assert chosen(model, copy) == before != chosen(model, first)
    copy.remove()


def test_saved_and_loaded_is_the_same(model: Model, make: Make) -> None:
    first, second = trained(model, make, "oat"), make("oat-2")
    first.save("kept/oat")
    second.load("kept/oat")
    assert chosen(model, second) == chosen(model, first)
    for path in ("../outside", "/tmp/outside", "kept/../../outside"):
        with pytest.raises(ValueError, match="path"):
            first.save(path)


def test_a_folder_of_peft_is_what_its_weights_are(
    model: Model, served: Served, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Loaded by a program it is what transformers gives with the same weights added to the model's own."""
    parts = shapes(served["qwen3"].runner, ("q_proj", "v_proj", "down_proj"))  # type: ignore[arg-type]
    kept = write_folder(tmp_path / "adapters" / "ada" / "rye", random_lora(parts, 4, 1), r=4, lora_alpha=8)
    adapter = Adapter.create(model, "rye-peft")
    try:
        adapter.load("rye")
        with quiet():
            theirs = AutoModelForCausalLM.from_pretrained(
                folder("qwen3"), attn_implementation="eager", dtype=torch.float32
            )
        merge(theirs, kept)
        tokens = chosen(model, adapter)
        assert_greedy(theirs.eval(), PROMPT, tokens)
        assert tokens != chosen(model, None)
        (kept / "adapter_model.safetensors").unlink()
        with pytest.raises(LookupError, match=r"^rye/adapter_model\.safetensors: no such file"):
            adapter.load("rye")
    finally:
        adapter.remove()


def test_a_name_is_taken_once_and_found_by_its_owners_programs(model: Model, make: Make, connect: Connect) -> None:
    adapter = make("shared")
    with pytest.raises(RuntimeError, match="shared"):
        Adapter.create(model, "shared")
    assert Adapter.lookup(model, "nobody") is None
    wanted = chosen(model, adapter, 3)
    with connect("qwen3"):
        again = Model.load("qwen3")
        found = Adapter.lookup(again, "shared")
        assert found is not None and chosen(again, found, 3) == wanted
    with connect("qwen3", owner="bob"):
        assert Adapter.lookup(Model.load("qwen3"), "shared") is None


def test_a_lock_is_of_one_program(model: Model, make: Make, connect: Connect) -> None:
    adapter = make("locked")
    assert adapter.acquire_lock()
    with connect("qwen3", id="another"):
        again = Model.load("qwen3")
        other = Adapter.lookup(again, "locked")
        assert other is not None and not other.acquire_lock()
        with pytest.raises(RuntimeError, match="lock"):
            zo.update(other, [0.0] * 6, [1, 2, 3, 4, 5, 6], 0.0)
        assert len(chosen(again, other, 1, 3)) == 3
