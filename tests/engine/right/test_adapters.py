"""Adapters and zo through sessions: mixed batches, pages keyed by their weights, and seed 0 as the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import Locked
from bakehouse.engine.params import GREEDY, SampleAt
from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.session import Session
from tests.engine.adapters.folders import merge, random_lora, write_folder
from tests.engine.right.support import (
    DIST,
    TOLERANCE,
    WAIT_S,
    Open,
    assert_greedy,
    dense,
    distributions,
    eager_logs,
    forward,
    some_tokens,
    start,
    tokens_of,
)

#: Widths of what the tiny llama's projections give; its hidden size is 64.
OUTPUTS = {"q_proj": 128, "k_proj": 64, "v_proj": 64}
LAYERS = 2


@pytest.fixture
def lora(tmp_path: Path) -> Callable[[int], Path]:
    """A random PEFT folder by number."""

    def of(number: int) -> Path:
        modules = {
            f"model.layers.{layer}.self_attn.{name}": (64, width)
            for layer in range(LAYERS)
            for name, width in OUTPUTS.items()
        }
        tensors = random_lora(modules, rank=4 + number, seed=number, size=0.3)
        return write_folder(tmp_path / f"lora-{number}", tensors, r=4 + number, lora_alpha=8)

    return of


@pytest.fixture
def merged(folder: Callable[[str], Path], lora: Callable[[int], Path]) -> Callable[[int | None], Any]:
    """transformers' model with a folder's weights added to its own."""

    def of(number: int | None) -> Any:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder("llama"), attn_implementation="eager", dtype=torch.float32
            )
        if number is not None:
            merge(model, lora(number))
        return model.eval().requires_grad_(False)

    return of


@pytest.fixture
def session(open_: Open) -> Iterator[Session]:
    made = open_("llama")
    yield made
    for name in made._served.adapters.names():
        adapter = made.lookup_adapter(name)
        assert adapter is not None
        made.remove_adapter(adapter).result(WAIT_S)


def adapter_of(session: Session, name: str, folder: Path) -> int:
    adapter = session.create_adapter(name).result(WAIT_S)
    session.load_adapter(adapter, str(folder)).result(WAIT_S)
    return adapter


def test_a_mixed_batch_gives_each_its_own(session: Session, lora: Any, merged: Any) -> None:
    """Generations without, with one and with another adapter, at once, of the same prompt."""
    adapters = [None, adapter_of(session, "rye", lora(0)), adapter_of(session, "oat", lora(1))]
    prompt = some_tokens(37)
    streams = [
        start(session, written(session, prompt), adapter=adapter, max_tokens=60) for adapter in (*adapters, *adapters)
    ]
    chosen = [tokens_of(stream) for stream in streams]
    assert chosen[:3] == chosen[3:]
    assert len({tuple(tokens) for tokens in chosen}) == 3
    for number, tokens in zip((None, 0, 1), chosen, strict=False):
        assert_greedy(merged(number), prompt, tokens)


def written(session: Session, prompt: list[int]) -> int:
    """A context with nothing run yet: a flush would run it without the adapter."""
    context = session.create_context()
    session.append_tokens(context, prompt)
    return context


def test_pages_are_of_the_weights_that_made_them(session: Session, lora: Any, merged: Any) -> None:
    """The same prompt with an adapter, without, and with the adapter after other weights were loaded into it."""
    prompt = some_tokens(64, seed=3)
    adapter = adapter_of(session, "rye", lora(0))

    def last(which: int | None, seed: int = 0) -> Any:
        samplers = (SampleAt((63,), DIST),)
        context = session.create_context()
        (result,) = forward(
            session, context=context, tokens=tuple(prompt), samplers=samplers, adapter=which, zo_seed=seed
        ).results
        session.release_context(context)
        return dense(result).log()

    loop = session._served.loop
    for number, load in ((0, False), (1, True), (0, True)):
        if load:
            session.load_adapter(adapter, str(lora(number))).result(WAIT_S)
        before = loop.stats()["plan_rows"]
        wanted = eager_logs(merged(number), prompt)[-1]
        assert (last(adapter) - wanted).abs().max() < TOLERANCE
        assert loop.stats()["plan_rows"] - before == 64
        assert (last(adapter) - wanted).abs().max() < TOLERANCE  # now from its own pages
        assert loop.stats()["plan_rows"] - before == 64 + 1
        assert (last(None) - eager_logs(merged(None), prompt)[-1]).abs().max() < TOLERANCE


def test_a_context_may_change_adapters_on_its_way(session: Session, lora: Any, merged: Any) -> None:
    """KV of each part is of its own weights, so no single model is the reference: the same parts anew are."""
    rye, oat = adapter_of(session, "rye", lora(0)), adapter_of(session, "oat", lora(1))
    tokens = some_tokens(50, seed=9)

    def run(cuts: list[tuple[int, int, int | None]]) -> Any:
        context = session.create_context()
        parts = [distributions(session, tokens[a:b], context=context, adapter=which) for a, b, which in cuts]
        return torch.cat(parts)

    whole = run([(0, 20, rye), (20, 35, oat), (35, 50, None)])
    finer = run([(0, 7, rye), (7, 20, rye), (20, 21, oat), (21, 35, oat), (35, 50, None)])
    assert (whole - finer).abs().max() < TOLERANCE
    assert (whole[:20] - eager_logs(merged(0), tokens[:20])).abs().max() < TOLERANCE
    assert (whole[35:] - eager_logs(merged(None), tokens)[35:]).abs().max() > 0.01


def test_a_clone_has_weights_of_its_own_and_saving_keeps_them(
    session: Session, lora: Any, merged: Any, tmp_path: Path
) -> None:
    rye = adapter_of(session, "rye", lora(0))
    clone = session.clone_adapter(rye, "rye-2").result(WAIT_S)
    session.load_adapter(rye, str(lora(1))).result(WAIT_S)
    session.save_adapter(clone, str(tmp_path / "saved")).result(WAIT_S)
    again = adapter_of(session, "again", tmp_path / "saved")
    tokens = some_tokens(30, seed=4)
    for which, number in ((rye, 1), (clone, 0), (again, 0)):
        ours = distributions(session, tokens, adapter=which)
        assert (ours - eager_logs(merged(number), tokens)).abs().max() < TOLERANCE


def test_zo_candidates_in_one_batch(session: Session, merged: Any) -> None:
    """Fresh weights change nothing at seed 0; a seed is the same candidate in any company, and no other."""
    adapter = session.create_adapter("bread").result(WAIT_S)
    session.initialize_zo(adapter, ZoParams(4, 8.0, 6, 0.5, 0.15)).result(WAIT_S)
    prompt = some_tokens(33, seed=5)

    def start_with(seed: int) -> Any:
        return start(session, written(session, prompt), sampler=GREEDY, adapter=adapter, zo_seed=seed, max_tokens=40)

    seeds = [0, 1, 2, -1, 2**40, -(2**63)]
    alone = [tokens_of(start_with(seed)) for seed in seeds]
    together = [tokens_of(stream) for stream in [start_with(seed) for seed in seeds]]
    assert together == alone
    assert_greedy(merged(None), prompt, alone[0])
    assert len({tuple(tokens) for tokens in alone[:4]}) == 4
    before = distributions(session, prompt, adapter=adapter)
    scores = [float(len(set(tokens))) for tokens in alone]
    session.update_zo(adapter, scores, seeds, 1.0).result(WAIT_S)
    after = distributions(session, prompt, adapter=adapter)
    assert (before - after).abs().max() > 1e-3
    assert (after - distributions(session, prompt, adapter=adapter)).abs().max() < TOLERANCE


def test_a_lock_keeps_others_from_changing_it(session: Session, open_: Open, lora: Any) -> None:
    rye = adapter_of(session, "rye", lora(0))
    other = open_("llama", owner="bob")
    found = other.lookup_adapter("rye")
    assert found == rye
    assert session.lock_adapter(rye)
    assert not other.lock_adapter(found)
    with pytest.raises(Locked):
        other.load_adapter(found, str(lora(1))).result(WAIT_S)
    assert len(distributions(other, [1, 2, 3], adapter=found)) == 3
    session.unlock_adapter(rye)
    assert other.lock_adapter(found)
    other.close()
    assert session.lock_adapter(rye)
