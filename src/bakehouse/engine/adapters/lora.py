"""The store of LoRA adapters on the device of a torch model: several in one batch, none at no cost, zo among them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bakehouse.engine.adapters import peft, zo, zo_file
from bakehouse.engine.adapters.base import AdapterStore, Change, ZoParams
from bakehouse.engine.adapters.joint import CandidatesWork, Joint, JointWork, joined, split
from bakehouse.engine.adapters.noise import NoiseCache
from bakehouse.engine.adapters.peft import Delta
from bakehouse.engine.adapters.route import (
    Groups,
    Linear,
    NoisyWork,
    Product,
    Rows,
    Site,
    Work,
    group_rows,
)
from bakehouse.engine.adapters.strategy import check_params
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.plan.step import StepPlan

_IN_LAYER = re.compile(r"(?!.*\.experts\.).*\.\d+\..*")
_QKV = re.compile(r"(?P<layer>.*\.(?P<index>\d+)\..*?)(?P<side>[qkv])_proj")
#: Bytes of noise kept from one step to the next; what is not kept is made again.
NOISE_BYTES = 256 * 2**20


@dataclass(slots=True)
class Weights:
    """What a slot holds. ``products``: by number of the site, made from the deltas when they came."""

    generation: int
    deltas: dict[str, Delta] = field(default_factory=dict)
    state: zo.State | None = None
    products: dict[int, Product] = field(default_factory=dict)


class LoraStore(AdapterStore):
    """Of *linears*, those within layers can carry adapters, which all see every row of a step. The output layer, which
    sees only rows that are read, and experts, which share the rows out, cannot.

    *dtype* is that of the activations. Weights are never changed in place: a change makes new ones and puts them in the
    old ones' place, so it happens whole or not at all, and copies share them.
    """

    def __init__(
        self,
        linears: Iterable[Linear],
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        capacity: int = 16,
        max_rank: int = 64,
        base: str = "",
        seed: int = 0,
        noise_bytes: int = NOISE_BYTES,
    ) -> None:
        self.capacity = capacity
        self._sites = [Site(linear) for linear in linears if all(_IN_LAYER.fullmatch(p.name) for p in linear.parts)]
        self._shapes = {
            part.name: (site.linear.in_features, part.stop - part.start)
            for site in self._sites
            for part in site.linear.parts
        }
        self._layer_sites = find_layers(self._shapes)
        #: Of each module that zo is on: its layer's place among the layers, and 0, 1, 2 for q, k, v.
        self._places = {
            module: (place, block)
            for place, site in enumerate(self._layer_sites)
            for block, module in enumerate(site.modules)
        }
        self._dtype, self._device = dtype, torch.device(device)
        self._max_rank, self._base = max_rank, base
        self._slots: dict[int, Weights] = {}
        self._generations = itertools.count(1)
        self._random = torch.Generator(self._device).manual_seed(seed)
        self._noise = NoiseCache(noise_bytes)
        self._open: list[Site] = []
        #: The weights of the last step's joint groups, by site, with which they were.
        self._joints: tuple[tuple[tuple[int, int], ...], dict[int, Joint]] | None = None

    def create(self) -> int:
        slot = next((slot for slot in range(self.capacity) if slot not in self._slots), None)
        if slot is None:
            raise LimitExceeded(f"all {self.capacity} adapters of this model are taken; remove one, or raise the limit")
        self._slots[slot] = Weights(next(self._generations))
        return slot

    def clone(self, slot: int) -> int:
        source = self._of(slot)
        copy = self.create()
        self._slots[copy] = replace(source, generation=next(self._generations))
        return copy

    def remove(self, slot: int) -> None:
        self._of(slot)
        del self._slots[slot]
        self._forget(slot)

    def generation(self, slot: int) -> int:
        return self._of(slot).generation

    def load(self, slot: int, path: Path) -> None:
        self.prepare_load(slot, path)()

    def prepare_load(self, slot: int, path: Path) -> Change:
        self._of(slot)
        deltas = peft.read(path, self._shapes, self._max_rank)
        for delta in deltas.values():
            delta.down, delta.up = delta.down.to(self._device, self._dtype), delta.up.to(self._device, self._dtype)
        state = self._load_state(path, deltas)
        return lambda: self._put(slot, deltas, state)

    def save(self, slot: int, path: Path) -> None:
        weights = self._of(slot)
        if not weights.deltas:
            raise BadRequest.at("adapter", "it has no weights yet to save; load or initialise it first")

        def fill(folder: Path) -> None:
            peft.write(folder, weights.deltas, self._base)
            if weights.state is not None:
                zo_file.write(folder, weights.state)

        peft.replace_folder(path, fill)

    def has_zo(self, slot: int) -> bool:
        return self._of(slot).state is not None

    def initialize_zo(self, slot: int, params: ZoParams) -> None:
        self._of(slot)
        check_params(params, self._max_rank)
        self._put_state(slot, zo.start(params, self._layers(), self._dtype, self._random))

    def update_zo(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
        self._put_state(slot, zo.update(self._state(slot), scores, seeds, max_sigma))

    def prepare_update(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> Change:
        before = self._state(slot)
        after = zo.update(before, scores, seeds, max_sigma)

        def finish() -> None:
            if self._state(slot) is before:
                self._put_state(slot, after)
            else:
                self.update_zo(slot, scores, seeds, max_sigma)

        return finish

    def _state(self, slot: int) -> zo.State:
        state = self._of(slot).state
        if state is None:
            raise BadRequest.at("adapter", "it has no optimiser to update; initialise zo on it first")
        return state

    def begin(self, plan: StepPlan) -> None:
        for site in self._open:
            site.close()
        self._open.clear()
        groups = group_rows(plan.segments)
        if not groups:
            return
        self._noise.tick()
        try:
            self._route(groups, len(plan.tokens))
        finally:
            self._open = [site for site in self._sites if site.work]

    def _route(self, groups: Groups, total: int) -> None:
        """Hand each site what it is to add; groups of few rows together where there are several of them."""
        plain: Groups = {}
        noisy: dict[int, Groups] = {}
        for (slot, seed), runs in groups.items():
            if seed != 0 and self._of(slot).state is not None:
                noisy.setdefault(slot, {})[slot, seed] = runs
            else:
                plain.setdefault((slot, 0), []).extend(runs)
        few, many = split(plain)
        for (slot, _), runs in many.items():
            self._open_plain(slot, Rows.of(runs, self._device), total)
        if few:
            self._open_joint(few, total)
        for slot, candidates in noisy.items():
            few, many = split(candidates)
            for (_, seed), runs in many.items():
                self._open_noisy(slot, seed, Rows.of(runs, self._device), total)
            if few:
                self._open_candidates(slot, few, total)

    def _open_plain(self, slot: int, rows: Rows, total: int) -> None:
        for number, product in self._of(slot).products.items():
            self._sites[number].open(Work(rows, product), total)

    def _open_joint(self, groups: Groups, total: int) -> None:
        slots = [slot for slot, _ in groups]
        key = tuple((slot, self._of(slot).generation) for slot in slots)
        if self._joints is None or self._joints[0] != key:
            self._joints = key, self._join([self._of(slot).products for slot in slots])
        rows, members = joined(groups, self._device)
        for number, joint in self._joints[1].items():
            self._sites[number].open(JointWork(rows, joint, members[:, None]), total)

    def _join(self, products: Sequence[dict[int, Product]]) -> dict[int, Joint]:
        numbers = sorted({number for each in products for number in each})
        return {
            number: Joint.of([(member, each[number]) for member, each in enumerate(products) if number in each])
            for number in numbers
        }

    def _open_noisy(self, slot: int, seed: int, rows: Rows, total: int) -> None:
        for number, product in self._of(slot).products.items():
            self._sites[number].open(NoisyWork(rows, product, self._noise_of(slot, seed, number)), total)

    def _open_candidates(self, slot: int, groups: Groups, total: int) -> None:
        rows, members = joined(groups, self._device)
        for number, product in self._of(slot).products.items():
            noises = [self._noise_of(slot, seed, number) for _, seed in groups]
            self._sites[number].open(CandidatesWork(rows, product, noises, members), total)

    def _noise_of(self, slot: int, seed: int, number: int) -> Callable[[], Product]:
        """Makes the noise of a candidate at one site, or takes what is kept of it."""
        weights = self._of(slot)
        return lambda: self._noise.get(
            (slot, weights.generation, seed, number), lambda: self._make(weights, seed, number)
        )

    def _make(self, weights: Weights, seed: int, number: int) -> Product:
        assert weights.state is not None
        parts = self._sites[number].linear.parts
        places = {part.name: self._places[part.name] for part in parts if part.name in weights.deltas}
        made = {name: zo.candidate(weights.state, layer, block, seed) for name, (layer, block) in places.items()}
        product = Product.of(parts, made)
        assert product is not None
        return product

    def _of(self, slot: int) -> Weights:
        try:
            return self._slots[slot]
        except KeyError:
            raise NotFound(f"there is no adapter in slot {slot}", field="adapter") from None

    def _put(self, slot: int, deltas: dict[str, Delta], state: zo.State | None) -> None:
        self._forget(slot)
        self._slots[slot] = Weights(next(self._generations), deltas, state, self._products(deltas))

    def _forget(self, slot: int) -> None:
        """Let go of what was made from the slot's weights."""
        self._noise.drop(slot)
        self._joints = None

    def _put_state(self, slot: int, state: zo.State) -> None:
        self._put(slot, zo.means(state), state)

    def _products(self, deltas: dict[str, Delta]) -> dict[int, Product]:
        made = {number: Product.of(site.linear.parts, deltas) for number, site in enumerate(self._sites)}
        return {number: product for number, product in made.items() if product is not None}

    def _layers(self) -> list[zo.LayerSite]:
        if not self._layer_sites:
            raise BadRequest.at("adapter", "zo needs a q_proj, k_proj and v_proj in each layer, which the model lacks")
        return self._layer_sites

    def _load_state(self, path: Path, deltas: dict[str, Delta]) -> zo.State | None:
        if not zo_file.is_there(path):
            return None
        params = zo_file.read_params(path)
        check_params(params, self._max_rank)
        return zo_file.read(path, params, self._layers(), deltas)


def find_layers(shapes: peft.Shapes) -> list[zo.LayerSite]:
    """The q, k and v projections of each layer, by their usual names. Empty where a layer has them otherwise."""
    layers: dict[tuple[str, int], dict[str, str]] = {}
    for name in shapes:
        if match := _QKV.fullmatch(name):
            layers.setdefault((match["layer"], int(match["index"])), {})[match["side"]] = name
    if any(len(sides) != 3 for sides in layers.values()):
        return []
    return [_layer_site(shapes, index, sides) for (_, index), sides in layers.items()]


def _layer_site(shapes: peft.Shapes, index: int, sides: dict[str, str]) -> zo.LayerSite:
    q, k, v = (sides[side] for side in "qkv")
    return zo.LayerSite(index, (q, k, v), shapes[q][0], (shapes[q][1], shapes[k][1], shapes[v][1]))
