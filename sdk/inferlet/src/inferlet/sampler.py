"""How one result is taken from one row of logits: presets of `Sampler`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampler:
    """Use the presets; the fields are what they set.

    The temperature divides the logits before the softmax; below 1e-5 the most likely id is taken, whatever the preset.
    Filters act on the probabilities after that, in the order top_k, top_p, min_p, each on what the one before left;
    then one draw is made. ``seed`` makes the draws of one generation repeatable; 0 means unseeded. A value that cannot
    be, such as a top_p above 1, is refused as `BadRequest` when the sampler is used.
    """

    kind: str
    temperature: float = 1.0
    k: int = 0
    p: float = 1.0
    floor: float = 0.0
    seed: int = 0
    entries: int = 0

    @staticmethod
    def greedy() -> Sampler:
        """The most likely id."""
        return Sampler("multinomial", temperature=0.0)

    @staticmethod
    def top_p(temperature: float = 0.6, top_p: float = 0.95, *, seed: int = 0) -> Sampler:
        """Of the fewest ids whose probabilities reach *top_p* together."""
        return Sampler("top_p", temperature=temperature, p=top_p, seed=seed)

    @staticmethod
    def top_k(temperature: float = 0.6, top_k: int = 50, *, seed: int = 0) -> Sampler:
        """Of the *top_k* most likely ids."""
        return Sampler("top_k", temperature=temperature, k=top_k, seed=seed)

    @staticmethod
    def min_p(temperature: float = 0.6, min_p: float = 0.1, *, seed: int = 0) -> Sampler:
        """Of the ids that are at least *min_p* times as likely as the most likely one."""
        return Sampler("min_p", temperature=temperature, floor=min_p, seed=seed)

    @staticmethod
    def multinomial(temperature: float = 1.0, seed: int = 0) -> Sampler:
        """Of all ids."""
        return Sampler("multinomial", temperature=temperature, seed=seed)

    @staticmethod
    def top_k_top_p(temperature: float = 0.6, top_k: int = 50, top_p: float = 0.95, *, seed: int = 0) -> Sampler:
        """Of the *top_k* most likely ids those that *top_p* leaves, their probabilities taken anew in between."""
        return Sampler("top_k_top_p", temperature=temperature, k=top_k, p=top_p, seed=seed)

    @staticmethod
    def embedding() -> Sampler:
        """No token: the final, normalised hidden state, little-endian float32. Of `ForwardPass` only."""
        return Sampler("embedding")

    @staticmethod
    def dist(temperature: float = 1.0, seed: int = 0) -> Sampler:
        """No token: ids and their probabilities, most likely first. Of `ForwardPass` only.

        *seed* bears an old name. It is how many entries come back: 0 for the whole vocabulary. A temperature of 0 means
        unscaled, as 1 does.
        """
        return Sampler("dist", temperature=temperature, entries=seed)

    def request(self) -> dict[str, Any]:
        """The form in which a host takes it; what has its usual value is left out."""
        found: dict[str, Any] = {"kind": self.kind, "temperature": self.temperature}
        for name, field, usual in _OPTIONS:
            value = getattr(self, field)
            if value != usual:
                found[name] = value
        return found


_OPTIONS = (
    ("top_k", "k", 0),
    ("top_p", "p", 1.0),
    ("min_p", "floor", 0.0),
    ("seed", "seed", 0),
    ("entries", "entries", 0),
)
