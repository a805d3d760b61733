"""Penalties and biases of a whole batch as flat arrays: which logits change, and by what. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.plan.step import Readout
from bakehouse.engine.sampling.rules import merged_bias

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """Ids that a sequence holds, as places in the flat logits, each once: what was generated, and how often, and what
    was in the prompt where the repetition penalty asks for it. An id may be in both. Per place what its row asks for.
    """

    places: Ints
    counts: Reals
    repetition: Reals
    frequency: Reals
    presence: Reals
    prompt_places: Ints
    prompt_repetition: Reals


class Histories:
    """Keeps the distinct ids of prompts, which stay the same object for as long as their sequence runs."""

    def __init__(self, kept: int = 512) -> None:
        self._kept = kept
        self._prompts: dict[int, tuple[Sequence[int], Ints]] = {}

    def seen(self, readouts: Sequence[tuple[int, Readout]], vocab_size: int) -> Seen:
        """Of (row, readout) pairs, for logits [rows, *vocab_size*]. Ids that the model does not have are left out."""
        written = [row * vocab_size + _ids(readout.generated, vocab_size) for row, readout in readouts]
        places, counts = np.unique(np.concatenate(written), return_counts=True)
        which = np.searchsorted([row for row, _ in readouts], places // vocab_size)
        asked = [readout.penalties for _, readout in readouts]
        repetition = np.array([each.repetition for each in asked], np.float32)
        read = [
            row * vocab_size + self._prompt(r.prompt, vocab_size) if r.penalties.repetition != 1 else _NONE
            for row, r in readouts
        ]
        return Seen(
            places=places,
            counts=counts.astype(np.float32),
            repetition=repetition[which],
            frequency=np.array([each.frequency for each in asked], np.float32)[which],
            presence=np.array([each.presence for each in asked], np.float32)[which],
            prompt_places=np.concatenate(read),
            prompt_repetition=np.repeat(repetition, [len(places) for places in read]),
        )

    def _prompt(self, tokens: Sequence[int], vocab_size: int) -> Ints:
        held = self._prompts.get(id(tokens))
        if held is None or held[0] is not tokens:
            if len(self._prompts) >= self._kept:
                self._prompts.pop(next(iter(self._prompts)))
            held = (tokens, np.unique(_ids(tokens, vocab_size)))
            if isinstance(tokens, tuple):  # what may still grow is not kept
                self._prompts[id(tokens)] = held
        return held[1]


_NONE: Ints = np.zeros(0, np.int64)


def _ids(tokens: Sequence[int], vocab_size: int) -> Ints:
    ids = np.asarray(tokens, np.int64)
    return ids if not ids.size or ids.max() < vocab_size else ids[ids < vocab_size]


def biases(readouts: Sequence[tuple[int, Readout]], vocab_size: int) -> tuple[Ints, Reals, dict[int, BadRequest]]:
    """Places in the flat logits, what is added there, and the rows whose bias names an id the model does not have."""
    places: list[int] = []
    values: list[float] = []
    refused: dict[int, BadRequest] = {}
    for row, readout in readouts:
        try:
            merged = merged_bias(readout.penalties, vocab_size)
        except BadRequest as error:
            refused[row] = error
            continue
        places += [row * vocab_size + token for token in merged]
        values += merged.values()
    return np.array(places, np.int64), np.array(values, np.float32), refused
