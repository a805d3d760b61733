"""The numbers of the evolution strategy and the checks of what callers give it. Standard library only.

Hansen, "The CMA evolution strategy: a tutorial" (arXiv 1604.00772), with the covariance matrix kept to its diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import BadRequest

MIN_SIGMA = 1e-7
MIN_VARIANCE = 1e-8
MAX_VARIANCE = 1e4
EPS = 1e-12


def check_params(params: ZoParams, max_rank: int) -> None:
    """Raises `BadRequest`."""
    for name, value, least in (("rank", params.rank, 1), ("population", params.population, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadRequest.at(name, f"must be an integer of {least} or more, not {value!r}")
    if params.rank > max_rank:
        raise BadRequest.at("rank", f"this engine takes adapters of rank {max_rank} or less")
    for name, number in (("alpha", params.alpha), ("mu_fraction", params.mu_fraction), ("sigma", params.sigma)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise BadRequest.at(name, f"must be a finite number, not {number!r}")
    if not 0 < params.mu_fraction <= 1:
        raise BadRequest.at("mu_fraction", "must be above 0 and at most 1")
    if params.sigma <= 0:
        raise BadRequest.at("sigma", "must be above 0")


def check_generation(params: ZoParams, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
    """Raises `BadRequest` unless there are exactly ``population`` finite scores and as many signed 64-bit seeds."""
    for name, values in (("scores", scores), ("seeds", seeds)):
        if len(values) != params.population:
            raise BadRequest.at(name, f"exactly {params.population} are needed, the population, not {len(values)}")
    for index, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise BadRequest.at(f"scores[{index}]", f"must be a finite number, not {score!r}")
    for index, seed in enumerate(seeds):
        if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
            raise BadRequest.at(f"seeds[{index}]", f"must be a signed 64-bit integer, not {seed!r}")
    if isinstance(max_sigma, bool) or not isinstance(max_sigma, int | float) or not math.isfinite(max_sigma):
        raise BadRequest.at("max_sigma", f"must be a finite number, 0 or less for no bound, not {max_sigma!r}")


def best_first(scores: Sequence[float], seeds: Sequence[int]) -> list[int]:
    """The seeds by score, highest first; of equal scores the earlier counts as better."""
    return [seeds[k] for k in sorted(range(len(scores)), key=lambda k: -scores[k])]


@dataclass(frozen=True, slots=True)
class Constants:
    """The strategy's numbers for ``size`` weights; names as in the tutorial."""

    weights: tuple[float, ...]
    mueff: float
    cc: float
    cs: float
    c1: float
    cmu: float
    damps: float
    chi: float
    size: int

    @classmethod
    def of(cls, params: ZoParams, size: int) -> Constants:
        mu = max(1, math.floor(params.population * params.mu_fraction))
        raw = [math.log(mu + 0.5) - math.log(i) for i in range(1, mu + 1)]
        weights = tuple(w / sum(raw) for w in raw)
        mueff = 1 / sum(w * w for w in weights)
        cs = (mueff + 2) / (size + mueff + 5)
        c1 = 2 / ((size + 1.3) ** 2 + mueff)
        return cls(
            weights=weights,
            mueff=mueff,
            cc=(4 + mueff / size) / (size + 4 + 2 * mueff / size),
            cs=cs,
            c1=c1,
            cmu=min(1 - c1, 2 * (mueff - 2 + 1 / mueff) / ((size + 2) ** 2 + mueff)),
            damps=1 + 2 * max(0.0, math.sqrt(max(0.0, mueff - 1) / (size + 1)) - 1) + cs,
            chi=math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size * size)),
            size=size,
        )

    def sigma(self, sigma: float, length: float, max_sigma: float) -> float:
        """The next step size, of a path of *length*; *max_sigma* of 0 or less bounds nothing."""
        grown = max(sigma * math.exp(self.cs / self.damps * (length / self.chi - 1)), MIN_SIGMA)
        return min(grown, max_sigma) if max_sigma > 0 else grown

    def straight(self, length: float) -> float:
        """1, or 0 where the path is so long that the rank-one path waits."""
        return 1.0 if length < (1.4 + 2 / (self.size + 1)) * self.chi else 0.0
