"""The noise of candidates, kept from one step to the next as far as there is room; it can always be made again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from bakehouse.engine.adapters.route import Product

#: Slot, generation of its weights, seed, number of the site.
Key = tuple[int, int, int, int]


class NoiseCache:
    """Up to a number of bytes. What this step or the last one used is not put aside for others: of more candidates than
    there is room for, the first ones stay and the others are made again in each step."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, tuple[int, int, Product]] = OrderedDict()
        self._bytes = 0
        self._step = 0

    def tick(self) -> None:
        self._step += 1

    def get(self, key: Key, make: Callable[[], Product]) -> Product:
        if (found := self._kept.pop(key, None)) is not None:
            self._kept[key] = (self._step, found[1], found[2])
            return found[2]
        product = make()
        size = product.bytes()
        while self._bytes + size > self._limit and self._kept and next(iter(self._kept.values()))[0] < self._step - 1:
            self._forget(next(iter(self._kept)))
        if self._bytes + size <= self._limit:
            self._kept[key] = (self._step, size, product)
            self._bytes += size
        return product

    def drop(self, slot: int) -> None:
        for key in [key for key in self._kept if key[0] == slot]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._bytes -= self._kept.pop(key)[1]
