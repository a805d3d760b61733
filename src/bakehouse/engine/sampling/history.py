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
    """One entry per id that a row's sequence holds: its place in the flat logits, and what its row asks for."""

    places: Ints
    counts: Reals
    repetition: Reals
    frequency: Reals
    presence: Reals


class Histories:
    """Keeps the distinct ids of prompts, which stay the same object for as long as their sequence runs."""

    def __init__(self, kept: int = 512) -> None:
        self._kept = kept
        self._prompts: dict[int, tuple[Sequence[int], Ints]] = {}

    def seen(self, readouts: Sequence[tuple[int, Readout]], vocab_size: int) -> Seen:
        """Of (row, readout) pairs, for logits [rows, *vocab_size*]. Ids that the model does not have are left out."""
        written = [row * vocab_size + self._ids(readout.generated, vocab_size) for row, readout in readouts]
        generated, counts = np.unique(np.concatenate(written), return_counts=True)
        read = [row * vocab_size + self._prompt(readout.prompt, vocab_size) for row, readout in readouts]
        places = np.union1d(generated, np.concatenate(read))
        by_place = np.zeros(places.size, np.float32)
        by_place[np.searchsorted(places, generated)] = counts
        which = np.searchsorted([row for row, _ in readouts], places // vocab_size)
        penalties = [readout.penalties for _, readout in readouts]
        repetition, frequency, presence = (
            np.array([getattr(each, name) for each in penalties], np.float32)[which]
            for name in ("repetition", "frequency", "presence")
        )
        return Seen(places, by_place, repetition, frequency, presence)

    def _prompt(self, tokens: Sequence[int], vocab_size: int) -> Ints:
        held = self._prompts.get(id(tokens))
        if held is None or held[0] is not tokens:
            if len(self._prompts) >= self._kept:
                self._prompts.pop(next(iter(self._prompts)))
            held = (tokens, np.unique(self._ids(tokens, vocab_size)))
            if isinstance(tokens, tuple):  # what may still grow is not kept
                self._prompts[id(tokens)] = held
        return held[1]

    @staticmethod
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
