"""zo against a literal transcription of its formulas in numpy, and against itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bakehouse.engine.adapters import zo
from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.lora import LoraStore
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.sampling import rng
from tests.engine.adapters.linears import HIDDEN, LAYERS, WIDTHS, plan, served

Array = npt.NDArray[np.float64]

PARAMS = ZoParams(rank=3, alpha=6.0, population=8, mu_fraction=0.5, sigma=0.05)
SEEDS = [5, -7, 2**40 + 3, 12345, 99, -(2**63), 2**63 - 1, 0]
SCORES = [0.1, 3.0, -1.0, 3.0, 2.0, 0.5, 0.7, 0.2]


def z(seed: int, rows: int, columns: int) -> Array:
    if seed == 0:
        return np.zeros((rows, columns))
    return rng.randn(seed & 0xFFFFFFFF, np.arange(rows * columns).reshape(rows, columns)).astype(np.float64)


def noise(layer: int, seed: int, rank: int) -> tuple[Array, Array]:
    """Z for D [I, 3r] and U [r, dq + dk + dv] of one layer."""
    if seed == 0:
        return np.zeros((HIDDEN, 3 * rank)), np.zeros((rank, sum(WIDTHS)))
    offsets = (0, 100, 200)
    down = [z(seed + layer + o, HIDDEN, rank) for o in offsets]
    up = [z(seed - (layer + o), rank, width) for o, width in zip(offsets, WIDTHS, strict=True)]
    return np.concatenate(down, axis=1), np.concatenate(up, axis=1)


class Reference:
    """One layer's optimiser as the formulas have it: D is [I, 3r] and U is [r, widths], in float64."""

    def __init__(self, layer: int, down: Array, up: Array, params: ZoParams) -> None:
        self.layer, self.params = layer, params
        self.m = [down, up]
        self.sigma = params.sigma
        self.ps = [np.zeros_like(m) for m in self.m]
        self.pc = [np.zeros_like(m) for m in self.m]
        self.C = [np.ones_like(m) for m in self.m]

    def deviations(self) -> list[Array]:
        return [self.sigma * np.sqrt(c) for c in self.C]

    def update(self, scores: list[float], seeds: list[int], max_sigma: float) -> None:
        lam = self.params.population
        mu = max(1, math.floor(lam * self.params.mu_fraction))
        w = np.array([math.log(mu + 0.5) - math.log(i) for i in range(1, mu + 1)])
        w = w / w.sum()
        mueff = 1 / (w**2).sum()
        d = self.m[0].size + self.m[1].size
        cc = (4 + mueff / d) / (d + 4 + 2 * mueff / d)
        cs = (mueff + 2) / (d + mueff + 5)
        c1 = 2 / ((d + 1.3) ** 2 + mueff)
        cmu = min(1 - c1, 2 * (mueff - 2 + 1 / mueff) / ((d + 2) ** 2 + mueff))
        damps = 1 + 2 * max(0, math.sqrt((mueff - 1) / (d + 1)) - 1) + cs
        chi = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))

        best = [seeds[i] for i in np.argsort(-np.array(scores), kind="stable")[:mu]]
        S = self.deviations()
        N = [[s * part for s, part in zip(S, noise(self.layer, seed, self.params.rank), strict=True)] for seed in best]
        new = [m + sum(w[k] * N[k][t] for k in range(mu)) for t, m in enumerate(self.m)]
        step = [(new[t] - self.m[t]) / self.sigma for t in (0, 1)]
        self.ps = [
            (1 - cs) * self.ps[t] + math.sqrt(cs * (2 - cs) * mueff) * step[t] / np.sqrt(self.C[t]) for t in (0, 1)
        ]
        n = math.sqrt(sum((p**2).sum() for p in self.ps))
        sigma = max(self.sigma * math.exp(cs / damps * (n / chi - 1)), 1e-7)
        if max_sigma > 0:
            sigma = min(sigma, max_sigma)
        h = 1 if n < (1.4 + 2 / (d + 1)) * chi else 0
        self.pc = [(1 - cc) * self.pc[t] + h * math.sqrt(cc * (2 - cc) * mueff) * step[t] for t in (0, 1)]
        self.C = [
            np.clip(
                (1 - c1 - cmu) * self.C[t]
                + c1 * self.pc[t] ** 2
                + cmu * sum(w[k] * (N[k][t] / self.sigma) ** 2 for k in range(mu)),
                1e-8,
                1e4,
            )
            for t in (0, 1)
        ]
        self.m, self.sigma = new, sigma


def initialised(params: ZoParams = PARAMS, dtype: torch.dtype = torch.float32) -> tuple[LoraStore, int]:
    _, _, store = served(dtype)
    slot = store.create()
    store.initialize_zo(slot, params)
    return store, slot


def state_of(store: LoraStore, slot: int) -> zo.State:
    state = store._slots[slot].state
    assert state is not None
    return state


def references(state: zo.State) -> list[Reference]:
    return [
        Reference(layer.site.index, layer.down.double().numpy(), layer.up.double().numpy(), state.params)
        for layer in state.layers
    ]


def close(ours: torch.Tensor, theirs: Array) -> None:
    np.testing.assert_allclose(ours.double().numpy(), theirs, rtol=1e-5, atol=1e-5)


def test_it_begins_with_the_stated_weights() -> None:
    store, slot = initialised()
    state = state_of(store, slot)
    assert len(state.layers) == LAYERS
    bound = 1 / math.sqrt(HIDDEN)  # Kaiming uniform with a = sqrt(5)
    for index, layer in enumerate(state.layers):
        assert layer.site.index == index
        assert layer.down.shape == (HIDDEN, 3 * PARAMS.rank)
        assert layer.up.shape == (PARAMS.rank, sum(WIDTHS))
        assert layer.down.abs().max() <= bound and layer.down.abs().max() > 0.9 * bound
        assert not layer.up.any()
        assert layer.sigma == PARAMS.sigma
    assert not torch.equal(state.layers[0].down, state.layers[1].down)


@pytest.mark.parametrize("max_sigma", [0.0, 0.0501, 0.01])
def test_three_generations_follow_the_formulas(max_sigma: float) -> None:
    store, slot = initialised()
    expected = references(state_of(store, slot))
    for generation in range(3):
        scores, seeds = SCORES[generation:] + SCORES[:generation], [seed ^ generation for seed in SEEDS]
        store.update_zo(slot, scores, seeds, max_sigma)
        for layer, reference in zip(state_of(store, slot).layers, expected, strict=True):
            reference.update(scores, seeds, max_sigma)
            close(layer.down, reference.m[0])
            close(layer.up, reference.m[1])
            assert layer.sigma == pytest.approx(reference.sigma, rel=1e-5)
            for paths, side in ((layer.of_down, 0), (layer.of_up, 1)):
                close(paths.step, reference.ps[side])
                close(paths.rank_one, reference.pc[side])
                close(paths.variance, reference.C[side])


def test_noise_of_a_candidate_follows_the_formulas() -> None:
    store, slot = initialised()
    for layer in state_of(store, slot).layers:
        for seed in (*SEEDS, -layer.site.index, layer.site.index + 100):
            down, up = layer.noise(seed)
            want = noise(layer.site.index, seed, PARAMS.rank)
            close(down, PARAMS.sigma * want[0])
            close(up, PARAMS.sigma * want[1])


def test_only_an_effective_seed_of_nought_is_no_noise_and_seed_nought_is_none_at_all() -> None:
    store, slot = initialised()
    layer = state_of(store, slot).layers[1]
    down, up = layer.noise(-101)  # layer 1, block k
    rank = PARAMS.rank
    assert not down[:, rank : 2 * rank].any()
    assert down[:, :rank].any() and down[:, 2 * rank :].any() and up.any()
    for layer in state_of(store, slot).layers:
        assert not any(side.any() for side in layer.noise(0))


def forward_reference(x: Array, layer: zo.LayerState, seed: int, alpha: float) -> list[Array]:
    """What q, k and v grow by, for rows *x*."""
    D, U = layer.down.double().numpy(), layer.up.double().numpy()
    S = [layer.sigma * np.sqrt(paths.variance.double().numpy()) for paths in (layer.of_down, layer.of_up)]
    Z = noise(layer.site.index, seed, PARAMS.rank)
    r, at, grown = PARAMS.rank, 0, []
    for block, width in enumerate(WIDTHS):
        here, there = slice(block * r, (block + 1) * r), slice(at, at + width)
        h = x @ D[:, here] + x @ (S[0] * Z[0])[:, here]
        grown.append(alpha / r * (h @ U[:, there] + h @ (S[1] * Z[1])[:, there]))
        at += width
    return grown


@pytest.mark.parametrize("apart", [True, False])
def test_rows_of_one_batch_carry_different_seeds(apart: bool) -> None:
    """Candidates of few rows are multiplied together, those of many each by itself; ``apart``: all have many."""
    _, linears, store = served()
    slot = store.create()
    store.initialize_zo(slot, PARAMS)
    store.update_zo(slot, SCORES, SEEDS, 0.0)  # so that up is not zero
    state = state_of(store, slot)
    more = 4 if apart else 0
    segments = [(2, 11), (3, 0), (1 + more, -3), (1, 11), (2 + more, 11), (1 + more, 2**62)]
    store.begin(plan((1, None, 0), *((count, slot, seed) for count, seed in segments)))
    ends = list(itertools.accumulate((count for count, _ in segments), initial=1))
    runs, seeds = [slice(*pair) for pair in itertools.pairwise(ends)], [seed for _, seed in segments]
    x = torch.randn(ends[-1], HIDDEN)
    for index, layer in enumerate(state.layers):
        joined = next(linear for linear in linears if linear.parts[0].name == f"model.layers.{index}.self_attn.q_proj")
        grown = (joined(x) - joined.kernel(x)).double().numpy()
        for run, seed in zip(runs, seeds, strict=True):
            want = np.concatenate(forward_reference(x[run].double().numpy(), layer, seed, PARAMS.alpha), axis=1)
            np.testing.assert_allclose(grown[run], want, atol=2e-5)
        assert not grown[0].any()


def test_ties_keep_the_order_of_the_candidates() -> None:
    params = ZoParams(rank=1, alpha=1, population=4, mu_fraction=0.25, sigma=0.1)
    store, slot = initialised(params)
    first = state_of(store, slot)
    moved = zo.update(first, [1.0, 2.0, 2.0, 2.0], [1, 2, 3, 4], 0.0).layers[0]
    torch.testing.assert_close(moved.up, first.layers[0].noise(2)[1])


def test_an_update_that_is_refused_changes_nothing() -> None:
    store, slot = initialised()
    generation, state = store.generation(slot), state_of(store, slot)
    for scores, seeds, max_sigma, field in (
        (SCORES[:-1], SEEDS, 0.0, "scores"),
        (SCORES, SEEDS[1:], 0.0, "seeds"),
        ([*SCORES[:-1], math.nan], SEEDS, 0.0, "scores[7]"),
        ([*SCORES[:-1], math.inf], SEEDS, 0.0, "scores[7]"),
        (SCORES, [2**63, *SEEDS[1:]], 0.0, "seeds[0]"),
        (SCORES, SEEDS, math.nan, "max_sigma"),
    ):
        with pytest.raises(BadRequest) as refused:
            store.update_zo(slot, scores, seeds, max_sigma)
        assert refused.value.field == field
    assert store.generation(slot) == generation
    assert state_of(store, slot) is state


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 65}, "rank"),
        ({"population": 0}, "population"),
        ({"mu_fraction": 0.0}, "mu_fraction"),
        ({"mu_fraction": 1.5}, "mu_fraction"),
        ({"sigma": 0.0}, "sigma"),
        ({"alpha": math.inf}, "alpha"),
    ],
)
def test_parameters_are_checked(changes: dict[str, float], field: str) -> None:
    values = {"rank": 2, "alpha": 4.0, "population": 4, "mu_fraction": 0.5, "sigma": 0.1, **changes}
    with pytest.raises(BadRequest) as refused:
        initialised(ZoParams(**values))  # type: ignore[arg-type]
    assert refused.value.field == field


def test_an_adapter_without_an_optimiser_cannot_be_updated() -> None:
    _, _, store = served()
    with pytest.raises(BadRequest, match="initialise"):
        store.update_zo(store.create(), [1.0], [1], 0.0)


@pytest.mark.parametrize("population", [1, 2, 3])
def test_small_populations_are_fine(population: int) -> None:
    params = ZoParams(rank=2, alpha=4, population=population, mu_fraction=0.5, sigma=0.1)
    store, slot = initialised(params)
    store.update_zo(slot, list(range(population)), list(range(1, population + 1)), 0.0)
    assert all(torch.isfinite(layer.up).all() and layer.sigma > 0 for layer in state_of(store, slot).layers)
