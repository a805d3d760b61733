"""Adapters on linears alone: rows find theirs, and only theirs, whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.lora import LoraStore
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.plan.step import StepPlan
from tests.engine.adapters.folders import merge, random_lora, write_folder
from tests.engine.adapters.linears import HIDDEN, LAYERS, WIDTHS, Stack, plan, served

Q, K, V = WIDTHS
MODULES = {
    f"model.layers.{layer}.self_attn.{name}": shape
    for layer in range(LAYERS)
    for name, shape in {
        "q_proj": (HIDDEN, Q),
        "k_proj": (HIDDEN, K),
        "v_proj": (HIDDEN, V),
        "o_proj": (Q, HIDDEN),
    }.items()
}


def some(*names: str) -> dict[str, tuple[int, int]]:
    return {module: shape for module, shape in MODULES.items() if module.rsplit(".", 1)[-1] in names}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four adapters that differ in rank, alpha and modules."""
    root = tmp_path_factory.mktemp("adapters")
    return [
        write_folder(root / "all", random_lora(MODULES, 4, 1), r=4, lora_alpha=8),
        write_folder(root / "qv", random_lora(some("q_proj", "v_proj"), 8, 2), r=8, lora_alpha=8),
        write_folder(root / "o", random_lora(some("o_proj"), 2, 3), r=2, lora_alpha=1),
        write_folder(root / "rs", random_lora(some("k_proj", "o_proj"), 4, 4), r=4, lora_alpha=3, use_rslora=True),
    ]


def loaded(store: LoraStore, folders: list[Path]) -> list[int]:
    slots = []
    for folder in folders:
        slots.append(store.create())
        store.load(slots[-1], folder)
    return slots


def merged(folder: Path) -> Stack:
    stack = Stack().requires_grad_(False)
    merge(stack, folder)
    return stack


def test_each_alone_is_the_merged_model(folders: list[Path]) -> None:
    stack, _, store = served()
    x = torch.randn(5, HIDDEN)
    plain = Stack()(x).detach()
    for slot, folder in zip(loaded(store, folders), folders, strict=True):
        store.begin(plan((5, slot, 0)))
        torch.testing.assert_close(stack(x), merged(folder)(x), rtol=0, atol=2e-5)
        assert not torch.allclose(stack(x), plain, atol=1e-3)
    store.begin(plan((5, None, 0)))
    torch.testing.assert_close(stack(x), plain, rtol=0, atol=2e-5)


Everything = tuple[Stack, LoraStore, list[int], dict[int | None, Stack]]


@pytest.fixture(scope="module")
def everything(folders: list[Path]) -> Everything:
    """The stack with all adapters loaded, their slots, and the merged models; None is the plain one."""
    stack, _, store = served()
    models: dict[int | None, Stack] = {index: merged(folder) for index, folder in enumerate(folders)}
    models[None] = Stack().requires_grad_(False)
    return stack, store, loaded(store, folders), models


@settings(max_examples=30, deadline=None)
@given(
    segments=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, 0, 1, 2, 3])), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_a_mixed_batch_is_each_row_alone(
    everything: Everything, segments: list[tuple[int, int | None]], seed: int
) -> None:
    stack, store, slots, models = everything
    torch.manual_seed(seed)
    x = torch.randn(sum(count for count, _ in segments), HIDDEN)
    store.begin(plan(*((count, None if which is None else slots[which], 0) for count, which in segments)))
    result, start = stack(x), 0
    for count, which in segments:
        rows = slice(start, start + count)
        torch.testing.assert_close(result[rows], models[which](x[rows]), rtol=0, atol=2e-5)
        start += count


@pytest.mark.parametrize("rows", [1, 5])
def test_what_overflows_with_one_adapter_reaches_no_other_row(
    everything: Everything, tmp_path: Path, rows: int
) -> None:
    stack, store, slots, models = everything
    huge = store.create()
    store.load(huge, write_folder(tmp_path, random_lora(MODULES, 4, 9, size=1e25), r=4, lora_alpha=8))
    x = torch.randn(4 * rows, HIDDEN)
    store.begin(plan((rows, slots[0], 0), (rows, huge, 0), (rows, slots[1], 0), (rows, slots[3], 0)))
    result = stack(x)
    assert not torch.isfinite(result[rows : 2 * rows]).all()
    for block, which in ((0, 0), (2, 1), (3, 3)):
        own = slice(block * rows, (block + 1) * rows)
        torch.testing.assert_close(result[own], models[which](x[own]), rtol=0, atol=2e-5)
    store.remove(huge)


def test_a_changed_adapter_is_not_taken_for_what_it_was(everything: Everything, folders: list[Path]) -> None:
    """What is multiplied together is kept from step to step, and not beyond a change of one of them."""
    stack, store, slots, models = everything
    copy = store.clone(slots[0])
    x = torch.randn(3, HIDDEN)
    for which in (0, 2, 1, 1):
        store.load(copy, folders[which])
        store.begin(plan((1, slots[3], 0), (1, copy, 0), (1, slots[1], 0)))
        torch.testing.assert_close(stack(x)[1:2], models[which](x[1:2]), rtol=0, atol=2e-5)
    store.remove(copy)


def test_nothing_is_called_where_no_segment_has_an_adapter(folders: list[Path]) -> None:
    _, linears, store = served()
    slot = loaded(store, folders[2:3])[0]
    store.begin(plan((2, slot, 0)))
    assert [linear.parts[0].name for linear in linears if linear.adapter] == list(some("o_proj"))
    store.begin(plan((2, None, 0)))
    assert all(linear.adapter is None for linear in linears)
    store.begin(plan((2, slot, 0)))
    store.begin(StepPlan())
    assert all(linear.adapter is None for linear in linears)


def test_a_created_adapter_changes_nothing() -> None:
    stack, linears, store = served()
    x = torch.randn(3, HIDDEN)
    store.begin(plan((3, store.create(), 0)))
    torch.testing.assert_close(stack(x), Stack()(x).detach(), rtol=0, atol=2e-5)
    assert all(linear.adapter is None for linear in linears)


def test_a_step_that_names_a_missing_slot_is_refused_and_the_next_one_is_clean(folders: list[Path]) -> None:
    _, linears, store = served()
    slot = loaded(store, folders[:1])[0]
    with pytest.raises(NotFound):
        store.begin(plan((1, slot, 0), (1, 9, 0)))
    store.begin(plan((1, None, 0)))
    assert all(linear.adapter is None for linear in linears)


def test_fewer_rows_than_the_step_has_is_an_error(folders: list[Path]) -> None:
    stack, _, store = served()
    slot = loaded(store, folders[:1])[0]
    store.begin(plan((4, None, 0), (1, slot, 0)))
    with pytest.raises(RuntimeError, match="4 rows of a step of 5"):
        stack(torch.randn(4, HIDDEN))


def test_generations_never_repeat(folders: list[Path]) -> None:
    _, _, store = served(capacity=2)
    seen = []
    params = ZoParams(rank=2, alpha=4, population=2, mu_fraction=0.5, sigma=0.1)
    for _ in range(3):
        slot = store.create()
        seen.append(store.generation(slot))
        store.load(slot, folders[0])
        seen.append(store.generation(slot))
        store.initialize_zo(slot, params)
        seen.append(store.generation(slot))
        store.update_zo(slot, [0, 1], [1, 2], 0.0)
        seen.append(store.generation(slot))
        copy = store.clone(slot)
        seen.append(store.generation(copy))
        store.remove(copy)
        store.remove(slot)
    assert len(set(seen)) == len(seen)


def test_a_prepared_update_is_the_update_also_of_weights_that_changed_meanwhile() -> None:
    params = ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.1)
    first, second = ([1, 2, 3, 4], [1, 2, 3, 4], 0.0), ([4, 3, 2, 1], [5, 6, 7, 8], 0.0)
    states = []
    for prepared in (False, True):
        _, _, store = served()
        slot = store.create()
        store.initialize_zo(slot, params)
        generation = store.generation(slot)
        if prepared:
            early, late = store.prepare_update(slot, *first), store.prepare_update(slot, *second)
            assert store.generation(slot) == generation
            early()
            late()
        else:
            store.update_zo(slot, *first)
            store.update_zo(slot, *second)
        states.append(store._slots[slot].state)
    one, two = states
    assert one is not None and two is not None
    assert all(torch.equal(a.up, b.up) and a.sigma == b.sigma for a, b in zip(one.layers, two.layers, strict=True))


def test_slots_are_limited_and_freed() -> None:
    _, _, store = served(capacity=2)
    first, second = store.create(), store.create()
    with pytest.raises(LimitExceeded, match="2 adapters"):
        store.create()
    with pytest.raises(LimitExceeded):
        store.clone(first)
    store.remove(second)
    assert store.create() == second
    store.remove(first)
    for call in (store.remove, store.generation, store.clone):
        with pytest.raises(NotFound):
            call(first)


def test_a_clone_is_a_copy_of_its_own(folders: list[Path]) -> None:
    stack, _, store = served()
    slot = loaded(store, folders[:1])[0]
    copy = store.clone(slot)
    store.load(slot, folders[1])
    x = torch.randn(4, HIDDEN)
    store.begin(plan((2, slot, 0), (2, copy, 0)))
    result = stack(x)
    torch.testing.assert_close(result[:2], merged(folders[1])(x[:2]), rtol=0, atol=2e-5)
    torch.testing.assert_close(result[2:], merged(folders[0])(x[2:]), rtol=0, atol=2e-5)


def test_a_clone_goes_on_evolving_by_itself() -> None:
    _, _, store = served()
    slot = store.create()
    store.initialize_zo(slot, ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.1))
    store.update_zo(slot, [1, 2, 3, 4], [1, 2, 3, 4], 0.0)
    copy = store.clone(slot)
    for each in (slot, copy):
        store.update_zo(each, [4, 3, 2, 1], [5, 6, 7, 8], 0.0)
    store.update_zo(copy, [4, 3, 2, 1], [5, 6, 7, 8], 0.0)
    ours, theirs = (store._slots[each].state for each in (slot, copy))
    assert ours is not None and theirs is not None
    assert not torch.equal(ours.layers[0].up, theirs.layers[0].up)


def test_saved_and_loaded_is_the_same(folders: list[Path], tmp_path: Path) -> None:
    stack, _, store = served()
    x = torch.randn(3, HIDDEN)
    for folder in folders:
        slot = loaded(store, [folder])[0]
        store.save(slot, tmp_path / folder.name)
        again = loaded(store, [tmp_path / folder.name])[0]
        store.begin(plan((3, slot, 0)))
        expected = stack(x)
        store.begin(plan((3, again, 0)))
        assert torch.equal(stack(x), expected)
        torch.testing.assert_close(expected, merged(tmp_path / folder.name)(x), rtol=0, atol=2e-5)
        store.remove(slot)
        store.remove(again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimiser_goes_on_where_it_was_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    params = ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.1)
    _, _, store = served(dtype)
    slot = store.create()
    store.initialize_zo(slot, params)
    store.update_zo(slot, [1, 2, 3, 4], [1, 2, 3, 4], 0.0)
    store.save(slot, tmp_path / "zo")
    _, _, other = served(dtype)
    again = other.create()
    other.load(again, tmp_path / "zo")
    for each, where in ((store, slot), (other, again)):
        each.update_zo(where, [4, 3, 2, 1], [5, 6, 7, 8], 0.0)
    ours, theirs = store._slots[slot].state, other._slots[again].state
    assert ours is not None and theirs is not None
    for one, two in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(one.down, two.down) and torch.equal(one.up, two.up)
        assert one.sigma == two.sigma and torch.equal(one.of_up.variance, two.of_up.variance)


def test_the_mean_of_an_optimiser_is_an_ordinary_adapter(tmp_path: Path) -> None:
    stack, _, store = served()
    slot = store.create()
    store.initialize_zo(slot, ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.5))
    store.update_zo(slot, [1, 2, 3, 4], [1, 2, 3, 4], 0.0)
    store.save(slot, tmp_path / "zo")
    x = torch.randn(3, HIDDEN)
    store.begin(plan((3, slot, 0)))
    torch.testing.assert_close(stack(x), merged(tmp_path / "zo")(x), rtol=0, atol=2e-5)


def test_an_adapter_without_weights_is_not_saved(tmp_path: Path) -> None:
    _, _, store = served()
    with pytest.raises(BadRequest, match="no weights"):
        store.save(store.create(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantise", ["int8", "int4"])
def test_a_quantised_model_carries_adapters_in_the_dtype_of_its_activations(quantise: str, folders: list[Path]) -> None:
    stack, linears, store = served(torch.bfloat16, quantise)
    slots = loaded(store, folders[:2])
    x = torch.randn(4, HIDDEN, dtype=torch.bfloat16)
    store.begin(plan((2, slots[0], 0), (2, slots[1], 0)))
    for linear in linears:
        if linear.parts[0].name.endswith("0.self_attn.q_proj"):
            base, grown = linear.kernel(x), linear(x)
    wanted = []
    for folder, rows in zip(folders[:2], (slice(0, 2), slice(2, 4)), strict=True):
        model, plain = merged(folder), Stack()
        inner, outer = (each.model.layers[0].self_attn for each in (plain, model))  # type: ignore[union-attr]
        wanted.append(
            torch.cat(
                [
                    getattr(outer, name)(x[rows].float()) - getattr(inner, name)(x[rows].float())
                    for name in ("q_proj", "k_proj", "v_proj")
                ],
                dim=1,
            )
        )
    torch.testing.assert_close((grown - base).float(), torch.cat(wanted).detach(), rtol=0.03, atol=0.1)
    assert torch.isfinite(stack(x)).all()


def test_noise_is_kept_within_its_bytes_and_made_again_beyond_them() -> None:
    params = ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.5)
    x = torch.randn(8, HIDDEN)
    results = []
    for limit in (0, 20_000, 10**8):
        stack, _, store = served(noise_bytes=limit)
        slot = store.create()
        store.initialize_zo(slot, params)
        for _ in range(3):
            store.begin(plan(*((1, slot, seed) for seed in range(8))))
            results.append(stack(x))
            assert store._noise._bytes <= limit
        store.begin(plan(*((1, slot, seed) for seed in range(100, 108))))
        store.begin(plan(*((1, slot, seed) for seed in range(100, 108))))
        assert store._noise._bytes <= limit
        if limit == 20_000:
            assert len(store._noise._kept) > 0
        store.remove(slot)
        assert store._noise._bytes == 0 and not store._noise._kept
    for result in results[1:]:
        assert torch.equal(result, results[0])
