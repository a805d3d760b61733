"""Adapters of the dummy model: they shift, learn and are saved, and passes without one are as before."""

import json

import numpy as np
import pytest

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.dummy import DummyAdapters
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.params import Sampler
from bakehouse.engine.plan.step import Readout, Segment, StepPlan
from bakehouse.engine.runner.create import create_runner
from bakehouse.engine.spec import ModelSpec

ZO = ZoParams(rank=8, alpha=16.0, population=16, mu_fraction=0.5, sigma=0.005)


@pytest.fixture
def store():
    return DummyAdapters(3, 265)


def says(runner, adapter=None, zo_seed=0):
    plan = StepPlan([104, 105], [0, 1], [Segment(0, 2, 0, [0], adapter=adapter, zo_seed=zo_seed)])
    plan.readouts = [Readout(1, Sampler(kind="dist"))]
    return runner.sample(runner.forward(plan), plan.readouts)[0].value


def made():
    runner = create_runner(ModelSpec(name="d", source="dummy"))
    runner.allocate(2)
    return runner


def test_a_fresh_adapter_changes_nothing_and_noise_does():
    runner = made()
    slot = runner.adapters.create()
    base = says(runner)
    assert says(runner, slot) == says(runner, slot, zo_seed=5) == base
    runner.adapters.initialize_zo(slot, ZO)
    assert says(runner, slot, zo_seed=0) == base
    assert says(runner, slot, zo_seed=5) != base
    assert says(runner, slot, zo_seed=5) == says(runner, slot, zo_seed=5) != says(runner, slot, zo_seed=6)
    with pytest.raises(NotFound):
        says(runner, slot + 1)


def test_slots_and_generations(store):
    slots = [store.create() for _ in range(3)]
    with pytest.raises(LimitExceeded, match="3"):
        store.create()
    seen = {store.generation(slot) for slot in slots}
    store.remove(slots[1])
    with pytest.raises(NotFound):
        store.generation(slots[1])
    again = store.clone(slots[0])
    assert again == slots[1]
    assert store.generation(again) not in seen
    before = store.generation(again)
    store.initialize_zo(again, ZO)
    assert store.generation(again) not in {before, *seen}


def test_zo_learns(store):
    """The score is the weight of one id; the strategy moves it up and away from the others."""
    slot = store.create()
    store.initialize_zo(slot, ZO)
    target = np.zeros(265, np.float32)
    target[101] = 1.0

    def score(seed):
        return float(store.effect(slot, seed).shift @ target)

    starts = score(0)
    for generation in range(40):
        seeds = [1000 * generation + k + 1 for k in range(16)]
        store.update_zo(slot, [score(seed) for seed in seeds], seeds, max_sigma=0.0)
    shift = store.effect(slot, 0).shift
    assert starts == 0.0
    assert shift[101] > 3 * np.abs(np.delete(shift, 101)).mean()


def test_one_update_is_the_formula(store):
    """The mean moves by the weighted noise of the better half, equal scores in their order."""
    slot = store.create()
    store.initialize_zo(slot, ZO)
    seeds = list(range(1, 17))
    noise = [store.effect(slot, seed).shift for seed in seeds]
    store.update_zo(slot, [1.0] * 8 + [0.0] * 8, seeds, max_sigma=0.0)
    raw = [np.log(8.5) - np.log(i) for i in range(1, 9)]
    expected = sum(w / sum(raw) * n for w, n in zip(raw, noise, strict=False))
    assert np.allclose(store.effect(slot, 0).shift, expected, rtol=1e-4, atol=1e-5)


def test_clones_go_their_own_way(store):
    slot = store.create()
    store.initialize_zo(slot, ZO)
    other = store.clone(slot)
    store.update_zo(slot, list(range(16)), list(range(1, 17)), max_sigma=0.0)
    assert store.effect(slot, 0).digest
    assert store.effect(other, 0).digest == 0
    store.update_zo(other, list(range(16)), list(range(1, 17)), max_sigma=0.0)
    assert store.effect(other, 0).digest == store.effect(slot, 0).digest


def test_save_and_load(store, tmp_path):
    slot, other = store.create(), store.create()
    store.initialize_zo(slot, ZO)
    for round_ in range(2):
        store.update_zo(slot, list(range(16)), [round_ * 16 + k + 1 for k in range(16)], max_sigma=0.0)
        store.save(slot, tmp_path / "a")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    store.load(other, tmp_path / "a")
    assert store.effect(other, 3).digest == store.effect(slot, 3).digest
    for each in (slot, other):
        store.update_zo(each, list(range(16)), list(range(1, 17)), max_sigma=0.0)
    assert store.effect(other, 3).digest == store.effect(slot, 3).digest


def test_what_does_not_fit_is_refused_by_name(store, tmp_path):
    slot = store.create()
    with pytest.raises(NotFound, match=r"adapter_config\.json"):
        store.load(slot, tmp_path / "none")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(BadRequest, match="dummy model takes only"):
        store.load(slot, tmp_path / "peft")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(BadRequest, match="not overwritten"):
        store.save(slot, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    narrow = DummyAdapters(1, 9)
    narrow.save(narrow.create(), tmp_path / "narrow")
    with pytest.raises(BadRequest, match="tensor mean does not fit"):
        store.load(slot, tmp_path / "narrow")
    with pytest.raises(BadRequest, match="not initialised"):
        store.update_zo(slot, [1.0], [1], 0.0)
    store.initialize_zo(slot, ZO)
    with pytest.raises(BadRequest, match="exactly 16"):
        store.update_zo(slot, [1.0], [1], 0.0)
