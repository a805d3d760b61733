"""Sampling in numpy, one row after the other: the definition that faster samplers are tested against.

From logits to a token, in this order: repetition penalty, frequency and presence penalty, bias, logit mask; division
by the temperature; softmax; top_k, top_p, min_p; one draw by inversion of the distribution over ids in rising order.
Equal logits are ordered by id, lowest first. Penalties are computed in float32, so that equal logits stay equal in all
samplers; what follows is float64.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import Distribution, Embedding, SamplerKind, TokenLogprobs
from bakehouse.engine.plan.step import Readout, ReadoutResult
from bakehouse.engine.sampling import rules
from bakehouse.engine.sampling.rng import uniform

Row = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class ReferenceSampler:
    """Stateless; may be used from any thread."""

    def sample(self, logits: Row, hidden: Row | None, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        """One result per readout, in order. Changes nothing.

        *logits* [n, ids] has a row for each readout but embeddings, in their order; *hidden* [readouts, width] one for
        each, or is None where no embedding is wanted.
        """
        draws = uniform([readout.seed for readout in readouts], [readout.draw for readout in readouts])
        rows = iter(logits)
        results = []
        for index, readout in enumerate(readouts):
            if readout.sampler.kind is SamplerKind.EMBEDDING:
                assert hidden is not None, "an embedding is wanted and no hidden states are given"
                results.append(ReadoutResult(Embedding(np.asarray(hidden[index]).astype("<f4").tobytes())))
            else:
                results.append(_read(next(rows), readout, float(draws[index])))
        return results


def _read(row: Row, readout: Readout, number: float) -> ReadoutResult:
    sampler = readout.sampler
    try:
        row = processed(row, readout)
    except BadRequest as error:
        return rules.failed(error)
    best = float(row.max())
    if not np.isfinite(best):
        return rules.no_token(readout, best)
    if sampler.kind is SamplerKind.DIST:
        return ReadoutResult(distribution(row, rules.dist_temperature(sampler), sampler.entries))
    token = int(row.argmax()) if sampler.greedy else draw(kept_weights(row, readout), number)
    return ReadoutResult(token, logprobs(row, token, readout.logprobs) if rules.wants_logprobs(readout) else None)


def processed(row: Row, readout: Readout) -> Row:
    """A float32 copy of *row* after penalties, bias and mask; ids that may not come are -inf."""
    row = np.array(row, np.float32)
    _penalise(row, readout)
    for token, value in rules.merged_bias(readout.penalties, row.size).items():
        row[token] += np.float32(value)
    if readout.mask is not None:
        row[~allowed(readout.mask, row.size)] = -np.inf
    return row


def allowed(mask: bytes, size: int) -> Bools:
    """A packed mask as booleans."""
    return np.unpackbits(np.frombuffer(mask, np.uint8), count=size, bitorder="little").astype(np.bool_)


def _penalise(row: Row, readout: Readout) -> None:
    """Repetition as CTRL defines it (arXiv 1909.05858, section 4.1, with transformers' rule for negative logits), then
    frequency and presence as the OpenAI API documents them."""
    penalties = readout.penalties
    if not penalties.needs_history:
        return
    counts = _counts(readout.generated, row.size)
    seen = (counts > 0) | (_counts(readout.prompt, row.size) > 0)
    repetition = np.float32(penalties.repetition)
    row[seen] = np.where(row[seen] > 0, row[seen] / repetition, row[seen] * repetition)
    row -= np.float32(penalties.frequency) * counts.astype(np.float32)
    row -= np.float32(penalties.presence) * (counts > 0).astype(np.float32)


def _counts(tokens: Sequence[int], size: int) -> npt.NDArray[np.int64]:
    return np.bincount(np.asarray(tokens, np.int64), minlength=size)[:size]


def ranked(row: Row) -> npt.NDArray[np.int64]:
    """All ids, most likely first, equal ones by id."""
    return np.argsort(-row, kind="stable")


def kept_weights(row: Row, readout: Readout) -> Reals:
    """What each id weighs in the draw: 0 where a filter dropped it, else its probability relative to the largest."""
    sampler = readout.sampler
    weights = _weights(row, max(sampler.temperature, rules.COLDEST))
    order = ranked(row)
    if sampler.top_k:
        weights[order[sampler.top_k :]] = 0
    if sampler.top_p < 1:
        sorted_weights = weights[order]
        before = np.cumsum(sorted_weights) - sorted_weights
        before[0] = -1  # the most likely id stays, whatever top_p
        weights[order[before >= sampler.top_p * sorted_weights.sum()]] = 0
    weights[weights < sampler.min_p] = 0
    return weights


def _weights(row: Row, temperature: float) -> Reals:
    wide = row.astype(np.float64)
    weights: Reals = np.exp((wide - wide.max()) / temperature)
    return weights


def draw(weights: Reals, number: float) -> int:
    """The first id at which the summed weights exceed *number* times their total; never one that weighs nothing."""
    summed = np.cumsum(weights)
    target = min(number * summed[-1], np.nextafter(summed[-1], 0))
    return int(np.searchsorted(summed, target, side="right"))


def distribution(row: Row, temperature: float, entries: int) -> Distribution:
    """The softmax of *row*, most likely first; ids that may not come are left out."""
    order = ranked(row)[: np.count_nonzero(row > -np.inf)]
    weights = _weights(row, temperature)
    order = order[:entries] if entries else order
    probs = weights[order] / weights.sum()
    return Distribution(array("I", order.astype(np.uint32).tobytes()), array("f", probs.astype(np.float32).tobytes()))


def logprobs(row: Row, token: int, top: int) -> TokenLogprobs:
    """Of the processed row at temperature 1, whatever the sampler's."""
    wide = row.astype(np.float64)
    logs = wide - wide.max()
    logs -= np.log(np.exp(logs).sum())
    best = [int(each) for each in ranked(row)[:top] if logs[each] > -np.inf]
    return TokenLogprobs(token, float(logs[token]), tuple((each, float(logs[each])) for each in best))
