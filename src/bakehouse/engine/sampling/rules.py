"""What samplers agree on beside the arithmetic: who wants what, and what a row that cannot be sampled is answered."""

from __future__ import annotations

from bakehouse.engine.errors import BadRequest, EngineError, StepFailed
from bakehouse.engine.params import Penalties, Sampler
from bakehouse.engine.plan.step import Readout, ReadoutResult

#: Temperatures are not taken below this.
COLDEST = 1e-6


def failed(error: EngineError) -> ReadoutResult:
    return ReadoutResult(value=-1, error=error)


def no_token(readout: Readout, best: float) -> ReadoutResult:
    """The answer for a row whose largest logit is *best*, which is not finite."""
    if best != float("-inf"):
        return failed(StepFailed(f"the model gave logits that are not finite ({best}) for row {readout.row}"))
    if readout.mask is not None:
        return failed(BadRequest.at("logit_mask", "it allows no token that the model could give"))
    return failed(StepFailed(f"the model gave no token a chance: all logits of row {readout.row} are -inf"))


def merged_bias(penalties: Penalties, vocab_size: int) -> dict[int, float]:
    """One value per id. Raises `BadRequest` for an id that the model does not have."""
    merged: dict[int, float] = {}
    for token, value in penalties.bias:
        if token >= vocab_size:
            raise BadRequest.at("bias", f"token {token} is not below the vocabulary size, {vocab_size}")
        merged[token] = merged.get(token, 0.0) + value
    return merged


def wants_logprobs(readout: Readout) -> bool:
    return readout.sampler.yields_token and (readout.want_logprob or readout.logprobs > 0)


def dist_temperature(sampler: Sampler) -> float:
    """Of a distribution 0 means unscaled."""
    return max(sampler.temperature, COLDEST) if sampler.temperature else 1.0
