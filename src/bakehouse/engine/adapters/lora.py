"""The store of LoRA adapters on the device of a torch model: several in one batch, none at no cost, zo among them."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bakehouse.engine.adapters import peft, zo, zo_file
from bakehouse.engine.adapters.base import AdapterStore, ZoParams
from bakehouse.engine.adapters.peft import Delta
from bakehouse.engine.adapters.route import Group, Linear, Product, Rows, Site, Work, group_rows
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
        self._dtype, self._device = dtype, torch.device(device)
        self._max_rank, self._base = max_rank, base
        self._slots: dict[int, Weights] = {}
        self._generations = itertools.count(1)
        self._random = torch.Generator(self._device).manual_seed(seed)
        self._noise = _NoiseCache(noise_bytes)
        self._open: list[Site] = []

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
        self._noise.drop(slot)

    def generation(self, slot: int) -> int:
        return self._of(slot).generation

    def load(self, slot: int, path: Path) -> None:
        self._of(slot)
        deltas = peft.read(path, self._shapes, self._max_rank)
        for delta in deltas.values():
            delta.down, delta.up = delta.down.to(self._device, self._dtype), delta.up.to(self._device, self._dtype)
        self._put(slot, deltas, self._load_state(path, deltas))

    def save(self, slot: int, path: Path) -> None:
        weights = self._of(slot)
        if not weights.deltas:
            raise BadRequest.at("adapter", "it has no weights yet to save; load or initialise it first")

        def fill(folder: Path) -> None:
            peft.write(folder, weights.deltas, self._base)
            if weights.state is not None:
                zo_file.write(folder, weights.state)

        peft.replace_folder(path, fill)

    def initialize_zo(self, slot: int, params: ZoParams) -> None:
        self._of(slot)
        check_params(params, self._max_rank)
        self._put_state(slot, zo.start(params, self._layer_sites(), self._dtype, self._random))

    def update_zo(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
        state = self._of(slot).state
        if state is None:
            raise BadRequest.at("adapter", "it has no optimiser to update; initialise zo on it first")
        self._put_state(slot, zo.update(state, scores, seeds, max_sigma))

    def begin(self, plan: StepPlan) -> None:
        for site in self._open:
            site.close()
        self._open.clear()
        groups = group_rows(plan.segments)
        if not groups:
            return
        self._noise.tick()
        try:
            for group, runs in groups.items():
                self._route(group, Rows.of(runs, self._device), len(plan.tokens))
        finally:
            self._open = [site for site in self._sites if site.work]

    def _route(self, group: Group, rows: Rows, total: int) -> None:
        slot, seed = group
        weights = self._of(slot)
        noise = self._noises(slot, weights, seed) if weights.state is not None and seed != 0 else {}
        for number, product in weights.products.items():
            self._sites[number].open(Work(rows, product, noise.get(number)), total)

    def _noises(self, slot: int, weights: Weights, seed: int) -> dict[int, Product]:
        state = weights.state
        assert state is not None
        return self._noise.get(
            (slot, weights.generation, seed), lambda: self._products(zo.deltas_of(state, self._dtype, seed))
        )

    def _of(self, slot: int) -> Weights:
        try:
            return self._slots[slot]
        except KeyError:
            raise NotFound(f"there is no adapter in slot {slot}", field="adapter") from None

    def _put(self, slot: int, deltas: dict[str, Delta], state: zo.State | None) -> None:
        self._noise.drop(slot)
        self._slots[slot] = Weights(next(self._generations), deltas, state, self._products(deltas))

    def _put_state(self, slot: int, state: zo.State) -> None:
        self._put(slot, zo.deltas_of(state, self._dtype), state)

    def _products(self, deltas: dict[str, Delta]) -> dict[int, Product]:
        made = {number: Product.of(site.linear.parts, deltas) for number, site in enumerate(self._sites)}
        return {number: product for number, product in made.items() if product is not None}

    def _layer_sites(self) -> list[zo.LayerSite]:
        """The q, k and v projections of each layer. `BadRequest` where the model has them otherwise."""
        layers: dict[str, dict[str, str]] = {}
        numbers: dict[str, int] = {}
        for name in self._shapes:
            if match := _QKV.fullmatch(name):
                layers.setdefault(match["layer"], {})[match["side"]] = name
                numbers[match["layer"]] = int(match["index"])
        if not layers or any(len(sides) != 3 for sides in layers.values()):
            raise BadRequest.at("adapter", "zo needs a q_proj, k_proj and v_proj in each layer, which the model lacks")
        return [self._layer_site(numbers[layer], sides) for layer, sides in layers.items()]

    def _layer_site(self, index: int, sides: dict[str, str]) -> zo.LayerSite:
        q, k, v = (sides[side] for side in "qkv")
        widths = (self._shapes[q][1], self._shapes[k][1], self._shapes[v][1])
        return zo.LayerSite(index, (q, k, v), self._shapes[q][0], widths)

    def _load_state(self, path: Path, deltas: dict[str, Delta]) -> zo.State | None:
        if not zo_file.is_there(path):
            return None
        params = zo_file.read_params(path)
        check_params(params, self._max_rank)
        return zo_file.read(path, params, self._layer_sites(), deltas)


class _NoiseCache:
    """Noise of candidates up to a number of bytes. What this step or the last one used is not put aside for others:
    of more candidates than there is room for, the first ones stay and the others are made again in each step."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[int, int, int], tuple[int, int, dict[int, Product]]] = OrderedDict()
        self._bytes = 0
        self._step = 0

    def tick(self) -> None:
        self._step += 1

    def get(self, key: tuple[int, int, int], make: Callable[[], dict[int, Product]]) -> dict[int, Product]:
        if (found := self._kept.pop(key, None)) is not None:
            self._kept[key] = (self._step, found[1], found[2])
            return found[2]
        products = make()
        size = sum(product.bytes() for product in products.values())
        while self._bytes + size > self._limit and self._kept and next(iter(self._kept.values()))[0] < self._step - 1:
            self._forget(next(iter(self._kept)))
        if self._bytes + size <= self._limit:
            self._kept[key] = (self._step, size, products)
            self._bytes += size
        return products

    def drop(self, slot: int) -> None:
        for key in [key for key in self._kept if key[0] == slot]:
            self._forget(key)

    def _forget(self, key: tuple[int, int, int]) -> None:
        self._bytes -= self._kept.pop(key)[1]
