"""Adapters of the dummy model: a vector over the vocabulary that is added to the logits. No torch.

They fork, learn and are saved as LoRA adapters do, so programs that use adapters can be tested without a model. `zo`
really learns: the vector is one layer of the strategy.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bakehouse.engine.adapters import strategy
from bakehouse.engine.adapters.base import AdapterStore, ZoParams
from bakehouse.engine.adapters.folder import CONFIG, replace_folder
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.plan.step import StepPlan
from bakehouse.engine.sampling.rng import randn

Reals = npt.NDArray[np.float32]

#: Times alpha / rank: what a weight of 1 adds to a logit. With the usual sigma of 0.005 noise is of the order of 1.
GAIN = 100.0
MAX_RANK = 64
_WEIGHTS, _KIND = "adapter_model.npz", "BAKEHOUSE_DUMMY"
_CACHED = 256


@dataclass(frozen=True, slots=True)
class Effect:
    """``shift`` is added to the logits, [vocabulary]; equal ``digest``, equal shift, and 0 where it is zero."""

    shift: Reals
    digest: int


@dataclass(frozen=True, slots=True)
class _State:
    """Weights, [vocabulary] each, and their optimiser's state; never changed in place, so that clones may share it."""

    mean: Reals
    params: ZoParams | None = None
    sigma: float = 0.0
    path_step: Reals | None = None
    path_rank_one: Reals | None = None
    variance: Reals | None = None


class DummyAdapters(AdapterStore):
    """See `AdapterStore`."""

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity = capacity
        self._width = width
        self._slots: dict[int, _State] = {}
        self._generations: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._effects: dict[tuple[int, int], Effect] = {}

    def create(self) -> int:
        return self._take(_State(np.zeros(self._width, np.float32)))

    def clone(self, slot: int) -> int:
        return self._take(self._state(slot))

    def remove(self, slot: int) -> None:
        self._state(slot)
        del self._slots[slot], self._generations[slot]

    def generation(self, slot: int) -> int:
        self._state(slot)
        return self._generations[slot]

    def load(self, slot: int, path: Path) -> None:
        self._state(slot)
        self._set(slot, _read(path, self._width))

    def save(self, slot: int, path: Path) -> None:
        _write(path, self._state(slot))

    def has_zo(self, slot: int) -> bool:
        return self._state(slot).params is not None

    def initialize_zo(self, slot: int, params: ZoParams) -> None:
        self._state(slot)
        strategy.check_params(params, MAX_RANK)
        zeros = np.zeros(self._width, np.float32)
        self._set(slot, _State(zeros, params, params.sigma, zeros, zeros, np.ones_like(zeros)))

    def update_zo(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
        state = self._state(slot)
        if state.params is None:
            raise BadRequest.at("adapter", "it was not initialised for zo")
        strategy.check_generation(state.params, scores, seeds, max_sigma)
        self._set(slot, _updated(state, strategy.best_first(scores, seeds), max_sigma))

    def begin(self, plan: StepPlan) -> None:
        for segment in plan.segments:
            if segment.adapter is not None:
                self._state(segment.adapter)

    def effect(self, slot: int, zo_seed: int) -> Effect:
        """What passes with this adapter and candidate add. Seed 0, and an adapter without zo, is the mean."""
        state = self._state(slot)
        key = (self._generations[slot], zo_seed)
        if key not in self._effects:
            if len(self._effects) >= _CACHED:
                self._effects.pop(next(iter(self._effects)))
            self._effects[key] = _effect(state, zo_seed)
        return self._effects[key]

    def _take(self, state: _State) -> int:
        free = next((slot for slot in range(self.capacity) if slot not in self._slots), None)
        if free is None:
            raise LimitExceeded(f"all {self.capacity} adapter slots are taken; remove one")
        self._set(free, state)
        return free

    def _set(self, slot: int, state: _State) -> None:
        self._slots[slot] = state
        self._generations[slot] = next(self._numbers)

    def _state(self, slot: int) -> _State:
        if slot not in self._slots:
            raise NotFound(f"no adapter is in slot {slot}")
        return self._slots[slot]


def _effect(state: _State, zo_seed: int) -> Effect:
    weights = state.mean + _noise(state, zo_seed)
    scale = GAIN * (state.params.alpha / state.params.rank if state.params else 1.0)
    shift = (weights * np.float32(scale)).astype(np.float32)
    if not shift.any():
        return Effect(shift, 0)
    return Effect(shift, int.from_bytes(hashlib.blake2b(shift.tobytes(), digest_size=8).digest(), "little") or 1)


def _noise(state: _State, seed: int) -> Reals:
    """S * Z of one candidate; zero for seed 0 and without an optimiser."""
    if seed == 0 or state.variance is None:
        return np.zeros_like(state.mean)
    normals = randn(seed & 0xFFFFFFFF, np.arange(state.mean.size))
    noise: Reals = normals * np.sqrt(state.variance) * np.float32(state.sigma)
    return noise


def _updated(state: _State, best: Sequence[int], max_sigma: float) -> _State:
    """One generation, as `strategy` names its source; the mean's step is taken after rounding to float32."""
    assert state.params is not None
    assert state.path_step is not None
    assert state.path_rank_one is not None
    assert state.variance is not None
    k = strategy.Constants.of(state.params, state.mean.size)
    noises = [_noise(state, seed) for seed in best[: len(k.weights)]]
    weights = np.array(k.weights, np.float32)
    mean = state.mean + weights @ np.stack(noises)
    step = (mean - state.mean) / np.float32(state.sigma + strategy.EPS)
    push = math.sqrt(k.cs * (2 - k.cs) * k.mueff)
    path_step = (1 - k.cs) * state.path_step + push * step / (np.sqrt(state.variance) + strategy.EPS)
    length = float(np.linalg.norm(path_step))
    pull = k.straight(length) * math.sqrt(k.cc * (2 - k.cc) * k.mueff)
    path_rank_one = (1 - k.cc) * state.path_rank_one + pull * step
    squares = weights @ (np.stack(noises) / np.float32(state.sigma)) ** 2
    variance = (1 - k.c1 - k.cmu) * state.variance + k.c1 * path_rank_one**2 + k.cmu * squares
    return replace(
        state,
        mean=mean.astype(np.float32),
        sigma=k.sigma(state.sigma, length, max_sigma),
        path_step=path_step.astype(np.float32),
        path_rank_one=path_rank_one.astype(np.float32),
        variance=np.clip(variance, strategy.MIN_VARIANCE, strategy.MAX_VARIANCE).astype(np.float32),
    )


_VECTORS = ("mean", "path_step", "path_rank_one", "variance")


def _write(path: Path, state: _State) -> None:
    params = state.params
    zo = None if params is None else asdict(params) | {"now": state.sigma}
    vectors = {name: getattr(state, name) for name in _VECTORS if getattr(state, name) is not None}

    def fill(fresh: Path) -> None:
        np.savez(fresh / _WEIGHTS, allow_pickle=False, **vectors)
        (fresh / CONFIG).write_text(json.dumps({"peft_type": _KIND, "zo": zo}, indent=2) + "\n", encoding="utf-8")

    replace_folder(path, fill)


def _read(path: Path, width: int) -> _State:
    config, file = path / CONFIG, path / _WEIGHTS
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{config}: no such file; an adapter is a folder that holds {CONFIG} and {_WEIGHTS}") from None
    except (OSError, ValueError) as error:
        raise BadRequest.at("path", f"{config} cannot be read: {error}") from error
    if not isinstance(told, dict) or told.get("peft_type") != _KIND:
        raise BadRequest.at("path", f"{config}: the dummy model takes only adapters that a dummy model saved")
    try:
        with np.load(file, allow_pickle=False) as stored:
            vectors = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadRequest.at("path", f"{file} cannot be read: {error}") from error
    for name, vector in vectors.items():
        if name not in _VECTORS or vector.shape != (width,) or vector.dtype != np.float32:
            raise BadRequest.at("path", f"{file}: tensor {name} does not fit: float32 of {width} is needed")
    if "mean" not in vectors:
        raise BadRequest.at("path", f"{file}: tensor mean is missing")
    zo = told.get("zo")
    if zo is None:
        return _State(vectors["mean"])
    try:
        sigma = float(zo.pop("now"))
        return _State(params=ZoParams(**zo), sigma=sigma, **vectors)
    except (TypeError, KeyError, ValueError) as error:
        raise BadRequest.at("path", f"{config}: zo cannot be read: {error}") from error
