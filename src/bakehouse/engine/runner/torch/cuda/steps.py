"""What a runner has of this room: its attention by our kernels, and its decode steps by graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from bakehouse.engine.plan.step import StepPlan
from bakehouse.engine.runner.torch.attention import LayerKV, Now
from bakehouse.engine.runner.torch.batch import Batch, OnDevice
from bakehouse.engine.runner.torch.cuda.graphs import Capture, Graphs, Limits, Outputs
from bakehouse.engine.runner.torch.cuda.table import DecodeTable, PlanTable, Table

_log = logging.getLogger(__name__)

#: Token ids and positions ``[rows]`` to final states ``[rows, hidden]``, in the step that is on.
Forward = Callable[[Tensor, Tensor], Tensor]
#: States to logits.
Head = Callable[[Tensor], Tensor]


class DeviceSteps:
    """``attend`` puts our kernels into a batch; ``graphs``, where there are any, run what only decodes.

    *make* turns a step's table into its attention.
    """

    def __init__(self, make: Callable[[Table], OnDevice], device: torch.device) -> None:
        self._make = make
        self._device = device
        self.graphs: Graphs | None = None

    def attend(self, batch: Batch, plan: StepPlan) -> Batch:
        batch.on_device = self._make(PlanTable(plan, batch.slots))
        return batch

    def use_graphs(
        self, capture: Capture, limits: Limits, now: Now, batch: Batch, forward: Forward, head: Head
    ) -> None:
        """Run steps that only decode as *capture* makes them. *batch* is one of no rows."""

        def decode(tokens: Tensor, positions: Tensor, table: DecodeTable) -> Callable[[], Outputs]:
            attention = self._make(table)

            def run() -> Outputs:
                batch.on_device, now.batch = attention, batch
                try:
                    states = forward(tokens, positions)
                    return Outputs(states, head(states))
                finally:
                    now.clear()

            return run

        self.graphs = Graphs(decode, capture, limits, self._device)

    def decode(self, plan: StepPlan) -> Outputs | None:
        """See `Graphs.run`."""
        return None if self.graphs is None else self.graphs.run(plan)


def device_steps(layers: Sequence[LayerKV], page_size: int, device: torch.device) -> DeviceSteps | None:
    """For *layers* on *device*; None where torch's own attention is to be used. On CUDA the log says why."""
    if device.type != "cuda":
        return None
    if find_spec("triton") is None:
        _log.warning("triton is not installed: attention on %s uses torch's own kernels, without graphs", device)
        return None
    from bakehouse.engine.runner.torch.cuda.paged import WIDEST, PagedStep, fits

    if not fits(layers):
        _log.warning("heads wider than %d: attention uses torch's own kernels, without graphs", WIDEST)
        return None
    return DeviceSteps(partial(PagedStep, page_size=page_size), device)
