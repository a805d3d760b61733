"""Many adapters with a row or two each, as when many sequences decode: a few products for all instead of some for each.

Every row is multiplied by the downward halves of all, keeps what belongs to its own adapter, and goes up through all of
them, the others' share being zero. That is more arithmetic than the rows need, and far fewer small products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bakehouse.engine.adapters.route import Groups, Product, Rows, Up

#: A group with more rows is multiplied by itself; so are all groups when there are fewer of them than this.
MAX_ROWS = 4
MIN_GROUPS = 3


def split(groups: Groups) -> tuple[Groups, Groups]:
    """Those to be taken together, and those to be taken one by one."""
    few = {group: runs for group, runs in groups.items() if sum(stop - start for start, stop in runs) <= MAX_ROWS}
    if len(few) < MIN_GROUPS:
        return {}, groups
    return few, {group: runs for group, runs in groups.items() if group not in few}


def joined(groups: Groups, device: torch.device) -> tuple[Rows, Tensor]:
    """All their rows, and for each [rows] the number of its group."""
    runs = [run for group in groups.values() for run in group]
    members = [
        number for number, group in enumerate(groups.values()) for start, stop in group for _ in range(start, stop)
    ]
    numbers = [row for start, stop in runs for row in range(start, stop)]
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return Rows(numbers[0], numbers[-1] + 1), torch.tensor(members, device=device)
    return Rows.of(runs, device), torch.tensor(members, device=device)


@dataclass(slots=True)
class Joint:
    """The weights of several adapters: ``down`` [in, width], by part ``ups`` from columns of the width, and ``owners``
    [width], the number of the adapter that a column is of. ``scales`` [width] where they are not the same for all."""

    down: Tensor
    ups: list[Up]
    owners: Tensor
    scales: Tensor | None

    @classmethod
    def of(cls, members: Sequence[tuple[int, Product]]) -> Joint:
        """*members*: each adapter's number and its product. Copies the weights."""
        spans: dict[tuple[int, int], list[tuple[int, Product, Up]]] = {}
        for number, product in members:
            for up in product.ups:
                spans.setdefault((up.start, up.stop), []).append((number, product, up))
        entries = [entry for span in spans.values() for entry in span]
        scales = [up.scale for _, _, up in entries for _ in range(up.low, up.high)]
        owners = [number for number, _, up in entries for _ in range(up.low, up.high)]
        down = torch.cat([product.down[:, up.low : up.high] for _, product, up in entries], 1)
        alike = len(set(scales)) == 1
        return cls(
            down,
            _ups(spans, scales[0] if alike else 1.0),
            torch.tensor(owners, device=down.device),
            None if alike else torch.tensor(scales, dtype=down.dtype, device=down.device),
        )


def _ups(spans: dict[tuple[int, int], list[tuple[int, Product, Up]]], scale: float) -> list[Up]:
    ups: list[Up] = []
    low = 0
    for (start, stop), entries in spans.items():
        weight = torch.cat([up.weight for _, _, up in entries])
        ups.append(Up(start, stop, low, low + weight.shape[0], weight, scale))
        low += weight.shape[0]
    return ups


class JointWork(NamedTuple):
    """Rows of several adapters; ``members`` [rows, 1] has the number of each row's own."""

    rows: Rows
    joint: Joint
    members: Tensor

    def add(self, x: Tensor, y: Tensor) -> None:
        h = x @ self.joint.down
        # Not times 0: what overflows with another's weights must not reach this row.
        h.masked_fill_(self.members != self.joint.owners, 0)
        if self.joint.scales is not None:
            h.mul_(self.joint.scales)
        for up in self.joint.ups:
            y[:, up.start : up.stop].addmm_(h[:, up.low : up.high], up.weight, alpha=up.scale)


class CandidatesWork(NamedTuple):
    """Rows of several candidates of one adapter; ``members`` [rows] has the number of each row's own in ``noises``."""

    rows: Rows
    mean: Product
    noises: Sequence[Callable[[], Product]]
    members: Tensor

    def add(self, x: Tensor, y: Tensor) -> None:
        noises = [noise() for noise in self.noises]
        count, width = x.shape[0], self.mean.down.shape[1]
        every = torch.arange(count, device=x.device)
        h = x @ self.mean.down
        h += (x @ torch.cat([noise.down for noise in noises], 1)).view(count, -1, width)[every, self.members]
        self.mean.add(h, y)
        spread = h.new_zeros(count, len(noises), width)
        spread[every, self.members] = h
        for index, up in enumerate(self.mean.ups):
            weight = torch.cat([noise.ups[index].weight for noise in noises])
            mine = spread[:, :, up.low : up.high].reshape(count, -1)
            y[:, up.start : up.stop].addmm_(mine, weight, alpha=up.scale)
