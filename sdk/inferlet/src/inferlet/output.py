"""What a forward pass gives."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from inferlet._packing import unpack_bytes, unpack_floats, unpack_ids
from inferlet.generation import TokenLogprob, logprobs_of


class Distribution(NamedTuple):
    """Ids and their probabilities (32 bits each), side by side, most likely first."""

    ids: array[int]
    probs: array[float]


Result = int | bytes | Distribution


class Output:
    """The kinds of outputs under one name: ``case Output.Tokens(value=ids)``."""

    @dataclass(frozen=True)
    class Any:
        """What all kinds have, beside a ``value``.

        ``results``: one for each index that a sampler was attached to, in that order: an id, the bytes of an embedding,
        or a `Distribution`. A pass that wants tokens and something else is `Tokens`; the rest stands in ``results``.
        """

        results: list[Result] = field(default_factory=list)
        logprobs: list[TokenLogprob] = field(default_factory=list)

        @property
        def tokens(self) -> list[int]:
            """The ids among the results."""
            return [result for result in self.results if isinstance(result, int)]

        @property
        def distributions(self) -> list[Distribution]:
            """The distributions among the results."""
            return [result for result in self.results if isinstance(result, Distribution)]

        @property
        def embeddings(self) -> list[bytes]:
            """The embeddings among the results."""
            return [result for result in self.results if isinstance(result, bytes)]

    @dataclass(frozen=True)
    class Empty(Any):
        """No sampler was attached."""

        @property
        def value(self) -> None:
            """Nothing."""
            return None

    @dataclass(frozen=True)
    class Tokens(Any):
        """Sampled ids."""

        @property
        def value(self) -> list[int]:
            """One id for each index of a sampler that draws, in their order."""
            return self.tokens

    @dataclass(frozen=True)
    class TokensWithSpeculation(Any):
        """``accepted``: the drafts that held, and one new token. ``next_tokens``: what the engine would draft next."""

        accepted: list[int] = field(default_factory=list)
        next_tokens: list[int] = field(default_factory=list)
        next_positions: list[int] = field(default_factory=list)

        @property
        def value(self) -> tuple[list[int], list[int], list[int]]:
            """``accepted``, ``next_tokens``, ``next_positions``."""
            return self.accepted, self.next_tokens, self.next_positions

    @dataclass(frozen=True)
    class Embeddings(Any):
        """Final, normalised hidden states: little-endian float32, ``model.hidden_size`` of them each."""

        @property
        def value(self) -> list[bytes]:
            """One for each index, 4 bytes a number: ``array("f", value[0])``."""
            return self.embeddings

    @dataclass(frozen=True)
    class Distributions(Any):
        """Ids and probabilities."""

        @property
        def value(self) -> list[Distribution]:
            """One for each index."""
            return self.distributions


AnyOutput = Output.Empty | Output.Tokens | Output.TokensWithSpeculation | Output.Embeddings | Output.Distributions


def output_of(text: str) -> AnyOutput:
    """From the form in which a host gives it: a line of JSON, then what it announces, packed."""
    end = text.index("\n")
    head = json.loads(text[:end])
    results = _results(head["results"], text, end + 1)
    logprobs = logprobs_of(head.get("logprobs", []))
    if head.get("accepted"):
        return Output.TokensWithSpeculation(
            results, logprobs, head["accepted"], head.get("next_drafts", []), head.get("next_positions", [])
        )
    if not results:
        return Output.Empty(results, logprobs)
    if any(isinstance(result, int) for result in results):
        return Output.Tokens(results, logprobs)
    kind = Output.Embeddings if isinstance(results[0], bytes) else Output.Distributions
    return kind(results, logprobs)


def _results(rows: list[dict[str, int]], text: str, at: int) -> list[Result]:
    found: list[Result] = []
    for row in rows:
        if "token" in row:
            found.append(row["token"])
        elif "embedding" in row:
            found.append(unpack_bytes(text[at : at + row["embedding"]]))
            at += row["embedding"]
        else:
            size = 4 * row["distribution"]
            ids, probs = text[at : at + size], text[at + size : at + 2 * size]
            found.append(Distribution(unpack_ids(ids), unpack_floats(probs)))
            at += 2 * size
    return found
