"""Samplers that would rather not finish: each step they take the allowed token that leads furthest from the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.tokenizer.base import Tokenizer

#: Preferred of all allowed tokens, by name of the adversary.
LIKES: dict[str, Callable[[bytes], float]] = {
    "longest": len,
    "spaces": lambda text: sum(text.count(c) for c in b" \t\n\r"),
    "opens": lambda text: text.count(b"[") + text.count(b"{") + text.count(b'"') + text.count(b"("),
    "digits": lambda text: sum(text.count(c) for c in b"0123456789.eE-"),
    "escapes": lambda text: text.count(b"\\") + text.count(b"u"),
    "high": lambda text: sum(byte >= 128 for byte in text),
    "random": lambda text: 0.0,
}


def allowed(matcher: Matcher, vocab_size: int) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(matcher.mask(), np.uint8), bitorder="little")
    return np.flatnonzero(bits[:vocab_size])


class Adversary:
    """Stops only where nothing else is allowed, or, *willing*, with one chance in ten where it may."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[int], like: str, seed: int, willing: bool) -> None:
        self.rng = random.Random(seed)
        self.tokenizer = tokenizer
        self.stop = set(stop)
        self.willing = willing
        scores = [LIKES[like](tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]
        self.scores = np.asarray(scores, np.float64)

    def pick(self, ids: np.ndarray) -> int:
        stops = [int(i) for i in ids if int(i) in self.stop]
        others = ids[~np.isin(ids, stops)] if stops else ids
        if stops and (not len(others) or (self.willing and self.rng.random() < 0.1)):
            return self.rng.choice(stops)
        scores = self.scores[others]
        best = others[scores == scores.max()] if self.rng.random() < 0.8 else others
        return int(self.rng.choice(list(best)))

    def run(self, matcher: Matcher, limit: int) -> bytes | None:
        """The bytes of one generation, or None where *limit* tokens were not enough."""
        ids = self.tokens(matcher, limit)
        return None if ids is None else b"".join(map(self.tokenizer.token_bytes, ids))

    def tokens(self, matcher: Matcher, limit: int) -> list[int] | None:
        """As `run`, the ids; without the stop id."""
        out: list[int] = []
        for _ in range(limit):
            ids = allowed(matcher, self.tokenizer.vocab_size)
            assert len(ids), f"nothing is allowed after {self.tokenizer.decode(out)!r}"
            token = self.pick(ids)
            matcher.accept([token])
            if matcher.terminated:
                return out
            out.append(token)
        return None
