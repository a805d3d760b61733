"""Adapters through sessions of a served model: pages made with other weights are not taken, locks end with programs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import Locked, NameTaken, NotFound
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import Distribution, ForwardRequest, SampleAt, Sampler, SamplerKind
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine import models
from tests.engine.adapters.folders import random_lora, write_folder
from tests.engine.adapters.test_models import random_tokens, reference, serve, shapes
from tests.engine.session.support import settled
from tests.engine.steps import Rows, Steps, step

ALL = Sampler(kind=SamplerKind.DIST, temperature=0.0)
PROMPT = random_tokens(50, 4)  # three full pages and a bit
S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    runner, _ = serve(folder)
    root = tmp_path_factory.mktemp("adapters")
    return [
        write_folder(root / str(seed), random_lora(shapes(runner, ("q_proj", "down_proj")), 4, seed), r=4, lora_alpha=4)
        for seed in range(2)
    ]


@pytest.fixture
def served(folder: Path) -> Iterator[ServedModel]:
    made = ServedModel.load(ModelSpec(name="tiny", source=str(folder), dtype="fp32", kv_tokens=2000, max_context=512))
    yield made
    settled(made)
    made.close()


def distribution(session: Session, adapter: int | None = None, zo_seed: int = 0) -> Tensor:
    """The probabilities after `PROMPT`, in a context of its own, by id."""
    context = session.create_context()
    request = ForwardRequest(
        context=context,
        tokens=tuple(PROMPT),
        samplers=(SampleAt((len(PROMPT) - 1,), ALL),),
        adapter=adapter,
        zo_seed=zo_seed,
    )
    (result,) = session.forward(request).result(S).results
    session.release_context(context)
    assert isinstance(result, Distribution)
    probabilities = torch.zeros(models.VOCABULARY)
    probabilities[torch.tensor(list(result.ids))] = torch.tensor(list(result.probs))
    return probabilities


def expected(folder: Path, adapter: Path | None) -> Tensor:
    return torch.softmax(reference(folder, adapter)(torch.tensor([PROMPT])).logits[0, -1], -1)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_prefix_cache_keeps_weights_apart(served: ServedModel, folder: Path, adapters: list[Path]) -> None:
    with Session(served, "ada") as session:
        plain, first, second = (expected(folder, adapter) for adapter in (None, *adapters))
        adapter = session.create_adapter("style").result(S)
        close(distribution(session, adapter), plain)
        session.load_adapter(adapter, str(adapters[0])).result(S)
        for _ in range(2):
            close(distribution(session), plain)
            close(distribution(session, adapter), first)
        copy = session.clone_adapter(adapter, "copy").result(S)
        session.load_adapter(adapter, str(adapters[1])).result(S)
        for _ in range(2):
            close(distribution(session, adapter), second)
            close(distribution(session, copy), first)
        session.remove_adapter(adapter).result(S)
        again = session.create_adapter("style").result(S)  # in the same slot
        close(distribution(session, again), plain)
        with pytest.raises(NotFound):
            distribution(session, adapter)
        for each in (again, copy):
            session.remove_adapter(each).result(S)


def test_candidates_are_apart_and_seed_nought_is_the_mean(served: ServedModel, folder: Path, tmp_path: Path) -> None:
    params = ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.3)
    seeds = [0, 5, -5, 2**40, 0, 5]
    with Session(served, "ada") as session:
        adapter = session.create_adapter("evolving").result(S)
        session.initialize_zo(adapter, params).result(S)
        for generation in range(2):
            session.update_zo(adapter, [1, 2, 3, 4], [1 + generation, 2, 3, 4]).result(S)
            session.save_adapter(adapter, str(tmp_path / str(generation))).result(S)
            ours = [distribution(session, adapter, seed) for seed in seeds]
            close(ours[0], expected(folder, tmp_path / str(generation)))
            runner, store = serve(folder)
            slot = store.create()
            store.load(slot, tmp_path / str(generation))
            for seed, result in zip(seeds, ours, strict=True):
                plan = step([Rows(Steps(67).sequence(64), PROMPT, read=[-1], adapter=slot)])
                plan.segments[0].zo_seed = seed
                close(result, torch.softmax(runner.forward(plan).logits[0], -1))
        session.remove_adapter(adapter).result(S)


def test_others_go_on_while_an_adapter_evolves(served: ServedModel) -> None:
    """An update that takes long does so beside the model."""
    params = ZoParams(rank=16, alpha=4, population=160, mu_fraction=1.0, sigma=0.1)
    with Session(served, "ada") as session:
        adapter = session.create_adapter("slow").result(S)
        session.initialize_zo(adapter, params).result(S)
        updated = session.update_zo(adapter, list(range(160)), list(range(160)))
        finished = []
        while not updated.done():
            distribution(session)
            finished.append(updated.done())
        updated.result(S)
        assert finished.count(False) > 3
        session.remove_adapter(adapter).result(S)


def test_names_are_shared_by_owners_and_locks_end_with_their_program(served: ServedModel, adapters: list[Path]) -> None:
    with Session(served, "ada", "a") as ada:
        made = ada.create_adapter("style").result(S)
        with Session(served, "bob", "b") as bob:
            assert bob.lookup_adapter("style") == made
            with pytest.raises(NameTaken):
                bob.create_adapter("style").result(S)
            assert bob.lock_adapter(made)
            assert not ada.lock_adapter(made)
            with pytest.raises(Locked):
                ada.load_adapter(made, str(adapters[0])).result(S)
            bob.load_adapter(made, str(adapters[0])).result(S)
        ada.load_adapter(made, str(adapters[1])).result(S)
        assert ada.lock_adapter(made)
        ada.remove_adapter(made).result(S)


def test_passes_of_many_adapters_at_the_same_time(served: ServedModel, folder: Path, adapters: list[Path]) -> None:
    with Session(served, "ada") as session:
        slots: list[int | None] = [None]
        for number, path in enumerate(adapters):
            slots.append(session.create_adapter(str(number)).result(S))
            session.load_adapter(slots[-1] or 0, str(path)).result(S)
        wanted = [expected(folder, adapter) for adapter in (None, *adapters)]
        contexts = [session.create_context() for _ in range(9)]
        futures = [
            session.forward(
                ForwardRequest(
                    context=context,
                    tokens=tuple(PROMPT),
                    samplers=(SampleAt((len(PROMPT) - 1,), ALL),),
                    adapter=slots[index % 3],
                )
            )
            for index, context in enumerate(contexts)
        ]
        wait(futures, S)
        for index, future in enumerate(futures):
            (result,) = future.result(S).results
            assert isinstance(result, Distribution)
            best = wanted[index % 3].argmax().item()
            assert result.ids[0] == best
            assert result.probs[0] == pytest.approx(wanted[index % 3].max().item(), abs=1e-5)
