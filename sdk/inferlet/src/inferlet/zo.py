# Written by scripts/unasync.py from aio/zo.py: change that one.
"""Training without gradients: evolution strategies on the weights of an adapter.

A candidate is the adapter's mean plus noise that a signed 64-bit seed stands for; it is never stored. Generate with an
adapter and ``zo_seed``, or give a pass its `adapter_seed`, score what came out, and `update` with the scores. Seed 0 is
the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from inferlet._packing import pack_json
from inferlet._waits import result
from inferlet.adapter import Adapter
from inferlet.forward import ForwardPass


def initialize(
    adapter: Adapter, rank: int, alpha: float, population_size: int, mu_fraction: float, initial_sigma: float
) -> None:
    """Give *adapter* fresh weights of *rank*, scaled by *alpha* / *rank*.

    An update takes *population_size* scores, of which the best *mu_fraction* count. *initial_sigma* is the standard
    deviation of the noise at the start, in units of the weights. Raises `BadRequest` for numbers that cannot be,
    `Locked` where another program has the adapter's lock.
    """
    options = {
        "rank": rank,
        "alpha": alpha,
        "population_size": population_size,
        "mu_fraction": mu_fraction,
        "initial_sigma": initial_sigma,
    }
    result(adapter._host, adapter._host.adapters.zo_initialize(adapter._handle, pack_json(options)))


def update(adapter: Adapter, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0) -> None:
    """Move the mean towards the candidates that scored best; higher is better.

    One score and one seed for each of the population. The noise grows to at most *max_sigma*; 0 sets no bound. Raises
    `BadRequest` for other numbers of them, `Locked` where another program has the adapter's lock.
    """
    options = {"scores": list(scores), "seeds": list(seeds), "max_sigma": max_sigma}
    result(adapter._host, adapter._host.adapters.zo_update(adapter._handle, pack_json(options)))


def adapter_seed(forward_pass: ForwardPass, seed: int) -> None:
    """Run *forward_pass* with the candidate of *seed*, from now on; it must have an adapter."""
    forward_pass.adapter_seed(seed)
