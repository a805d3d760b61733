"""Sampling in torch: all rows of a step at once. `sampling.reference` defines what each row's answer is.

Rows are put in groups that take the same path, and the groups are kept for as long as the steps ask for the same
things. What a group needs is computed in float32, sums in float64; one copy brings everything back.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import Distribution, Embedding, SamplerKind, TokenLogprobs
from bakehouse.engine.plan.step import Readout, ReadoutResult
from bakehouse.engine.sampling import rules
from bakehouse.engine.sampling import torch_rows as on_rows
from bakehouse.engine.sampling.history import Histories, Seen, biases
from bakehouse.engine.sampling.torch_draws import FEW, Groups, drawn, group, rows_of

#: So many logits are worked on at once; a sorted one takes 50 bytes for a while.
_MOST = 1 << 25


class TorchSampler:
    """Used by one thread at a time. Remembers how the rows of the last step were grouped. *most* bounds the memory."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._groups: Groups | None = None
        self._histories = Histories()

    @torch.inference_mode()
    def sample(self, logits: Tensor, hidden: Tensor | None, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        """One result per readout, in order. Changes nothing; waits for the device.

        *logits* [n, ids] has a row for each readout but embeddings, in their order; *hidden* [readouts, width] one for
        each, or is None where no embedding is wanted.
        """
        embedded = [index for index, r in enumerate(readouts) if r.sampler.kind is SamplerKind.EMBEDDING]
        if not embedded:
            return self._read_all(logits, readouts)
        assert hidden is not None, "an embedding is wanted and no hidden states are given"
        states = iter(hidden[embedded].float().cpu().numpy().astype("<f4"))
        others = [r for r in readouts if r.sampler.kind is not SamplerKind.EMBEDDING]
        read = iter(self._read_all(logits, others))
        places = set(embedded)
        return [
            ReadoutResult(Embedding(next(states).tobytes())) if index in places else next(read)
            for index in range(len(readouts))
        ]

    def _read_all(self, logits: Tensor, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        """In as many parts as memory asks for, which is one for all but the largest steps."""
        most = max(1, self._most // max(1, logits.shape[1]))
        results: list[ReadoutResult] = []
        for start in range(0, len(readouts), most):
            results += self._read(logits[start : start + most], readouts[start : start + most])
        return results

    def _read(self, logits: Tensor, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        groups = self._grouped(readouts, logits)
        logged = [row for row, readout in enumerate(readouts) if rules.wants_logprobs(readout)]
        refused: dict[int, BadRequest] = {}
        if not _untouched(readouts):
            logits, refused = self._processed(logits, readouts)
        elif logged or not groups.greedy:
            logits = logits.float()
        best, tokens = on_rows.best(logits)
        if not groups.greedy:
            tokens = drawn(logits, best[:, None], tokens, groups, readouts)
        columns = [tokens.double(), best.double()]
        top = max((readouts[row].logprobs for row in logged), default=0)
        if logged:
            columns.append(
                _logs(rows_of(logits, logged), rows_of(best, logged), rows_of(tokens, logged), top).flatten()
            )
        flat = torch.cat(columns).tolist()
        results = _answers(readouts, flat, logged, top)
        if groups.dists:
            for row, value in zip(groups.dists, _distributions(logits, groups.dists, readouts), strict=True):
                results[row] = ReadoutResult(value) if results[row].error is None else results[row]
        for row, error in refused.items():
            results[row] = rules.failed(error)
        return results

    def _grouped(self, readouts: Sequence[Readout], logits: Tensor) -> Groups:
        held = self._groups
        if held is not None and held.fits(readouts):
            return held
        self._groups = group([readout.sampler for readout in readouts], logits.shape[1], logits.device)
        return self._groups

    def _processed(self, logits: Tensor, readouts: Sequence[Readout]) -> tuple[Tensor, dict[int, BadRequest]]:
        """A float32 copy of *logits* after penalties, biases and masks, and the rows whose bias is refused."""
        logits = logits.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        flat, size, device = logits.view(-1), logits.shape[1], logits.device
        penalised = [(row, r) for row, r in enumerate(readouts) if r.penalties.needs_history]
        if penalised:
            _penalise(flat, self._histories.seen(penalised, size))
        refused: dict[int, BadRequest] = {}
        biased = [(row, r) for row, r in enumerate(readouts) if r.penalties.bias]
        if biased:
            places, values, refused = biases(biased, size)
            at = torch.from_numpy(places).to(device)
            flat[at] += torch.from_numpy(values).to(device)
        masked = [(row, r.mask) for row, r in enumerate(readouts) if r.mask is not None]
        if masked:
            _mask(logits, masked)
        return logits, refused


def _untouched(readouts: Sequence[Readout]) -> bool:
    return all(readout.mask is None and readout.penalties.idle for readout in readouts)


def _penalise(flat: Tensor, seen: Seen) -> None:
    """In place. Generated ids are read before prompts change them, and written after."""

    def on_device(part: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(part).to(flat.device)

    places, counts = on_device(seen.places), on_device(seen.counts)
    values = _repeated(flat[places], on_device(seen.repetition))
    prompt_places = on_device(seen.prompt_places)
    flat[prompt_places] = _repeated(flat[prompt_places], on_device(seen.prompt_repetition))
    flat[places] = values - on_device(seen.frequency) * counts - on_device(seen.presence)


def _repeated(values: Tensor, penalty: Tensor) -> Tensor:
    return torch.where(values > 0, values / penalty, values * penalty)


def _mask(logits: Tensor, masked: list[tuple[int, bytes]]) -> None:
    """Sets what the masks forbid to -inf, in place."""
    rows, size = [row for row, _ in masked], logits.shape[1]
    packed = np.frombuffer(b"".join(mask for _, mask in masked), np.uint8).reshape(len(rows), -1)
    if logits.is_cuda:
        bits = torch.from_numpy(packed.copy()).to(logits.device)
        forbidden = ((bits[:, :, None] >> torch.arange(8, device=logits.device)) & 1).flatten(1)[:, :size] == 0
    else:
        forbidden = torch.from_numpy(np.unpackbits(~packed, axis=1, count=size, bitorder="little").view(np.bool_))
    if len(rows) == len(logits):
        logits.masked_fill_(forbidden, -torch.inf)
    else:
        logits[rows] = logits[rows].masked_fill_(forbidden, -torch.inf)


def _logs(logits: Tensor, best: Tensor, tokens: Tensor, top: int) -> Tensor:
    """[n, 1 + 2 * top] float64: the token's log-probability, the likeliest ids and theirs."""
    best = best[:, None]
    total = on_rows.totals(on_rows.relative(logits, best)).log_()
    ids = torch.cat((tokens[:, None], on_rows.best_ids(logits, top)), 1) if top else tokens[:, None]
    logs = logits.gather(1, ids).double() - best.double() - total
    return torch.cat((logs[:, :1], ids[:, 1:].double(), logs[:, 1:]), 1)


def _answers(readouts: Sequence[Readout], flat: list[float], logged: list[int], top: int) -> list[ReadoutResult]:
    """From tokens, best logits and then the rows of `_logs`, in one list."""
    count = len(readouts)
    results = [
        ReadoutResult(int(flat[row]))
        if math.isfinite(flat[count + row])
        else rules.no_token(readout, flat[count + row])
        for row, readout in enumerate(readouts)
    ]
    width = (len(flat) - 2 * count) // len(logged) if logged else 0
    for number, row in enumerate(logged):
        if results[row].error is None:
            start = 2 * count + number * width
            results[row] = results[row]._replace(
                logprobs=_token_logprobs(int(flat[row]), flat[start : start + width], readouts[row].logprobs)
            )
    return results


def _token_logprobs(token: int, logs: list[float], top: int) -> TokenLogprobs:
    width = (len(logs) - 1) // 2
    pairs = zip(logs[1 : 1 + width], logs[1 + width :], strict=True)
    best = tuple((int(each), value) for each, value in list(pairs)[:top] if value > -math.inf)
    return TokenLogprobs(token, logs[0], best)


def _distributions(logits: Tensor, rows: list[int], readouts: Sequence[Readout]) -> list[Distribution]:
    """Most likely first; ids that may not come are left out."""
    logits = rows_of(logits, rows)
    samplers = [readouts[row].sampler for row in rows]
    temperature = torch.tensor([[rules.dist_temperature(sampler)] for sampler in samplers], device=logits.device)
    weights = on_rows.relative(logits, logits.amax(1, keepdim=True), temperature)
    probs = weights / on_rows.totals(weights).float()
    wanted = [sampler.entries or logits.shape[1] for sampler in samplers]
    few = max(wanted) <= FEW
    ids = on_rows.best_ids(logits, max(wanted)) if few else on_rows.all_ids(logits)
    allowed = (logits.gather(1, ids) > -torch.inf).sum(1)
    every_id = ids.to(torch.int32).cpu().numpy().astype(np.uint32)
    every_prob = probs.gather(1, ids).cpu().numpy()
    counts = [min(want, count) for want, count in zip(wanted, allowed.tolist(), strict=True)]
    return [
        Distribution(array("I", every_id[row, :count].tobytes()), array("f", every_prob[row, :count].tobytes()))
        for row, count in enumerate(counts)
    ]
