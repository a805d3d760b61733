"""What a generation may be told beside its sampler, and what comes back, in the forms that hosts take and give."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from inferlet._host import Host
from inferlet._packing import pack_ids
from inferlet.events import AnyEvent, events_of
from inferlet.grammar import Grammar, Matcher
from inferlet.masks import Mask
from inferlet.sampler import Sampler

#: What `Context.generate` takes as ``logit_mask``: run lengths, a mask of the host's, or what gives one for each step.
LogitMask = Sequence[int] | Mask | Matcher | Grammar


@dataclass(frozen=True, slots=True)
class Penalties:
    """What is done to the logits, before the temperature, for the ids that the text holds already.

    ``repetition`` divides positive logits of ids seen before and multiplies negative ones (1 changes nothing).
    ``frequency`` is taken off once per occurrence in what was generated, ``presence`` once. ``bias`` is added to the
    logits of single ids.
    """

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """The form in which a host takes it."""
        return {
            "repetition": self.repetition,
            "frequency": self.frequency,
            "presence": self.presence,
            "bias": [[token, value] for token, value in self.bias.items()],
        }


@dataclass(frozen=True, slots=True)
class PromptLookup:
    """Draft what followed the last time the text ended like this: the same output in fewer steps where texts repeat.

    At most ``tokens`` are drafted at a time, and fewer while drafts do not hold. The end is compared with what stands
    before by its last ``longest`` tokens, and nothing is drafted where less than the last ``shortest`` are alike. Where
    a token is a letter or two, take 3 or more for the shortest and 16 for the longest.
    """

    tokens: int = 8
    longest: int = 3
    shortest: int = 1

    def request(self) -> dict[str, Any]:
        """The form in which a host takes it."""
        return {"tokens": self.tokens, "longest": self.longest, "shortest": self.shortest}


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithms after masks and penalties, at temperature 1. ``top``: the most likely ids, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


class HasHandle(Protocol):
    """An `Adapter` of either surface."""

    _handle: int


class Options(TypedDict, total=False):
    """What else a generation may be told. All of it may be left out."""

    #: Texts that end the generation; they and what follows are cut. They are found across borders of tokens.
    stop: Sequence[str]
    #: Ids that end it, in place of the model's own.
    stop_tokens: Sequence[int]
    #: So many of the most likely ids at each token, at most 64, in the stream's ``logprobs``.
    logprobs: int
    adapter: HasHandle
    #: Perturbs the adapter's weights, see `inferlet.zo`; 0 is the mean.
    zo_seed: int
    draft: PromptLookup
    penalties: Penalties
    #: Seconds until it ends as `DeadlineExceeded`.
    timeout: float


class Asked(Options, total=False):
    """What a generation is asked beside its sampler and its decoders."""

    max_tokens: int | None
    logit_mask: LogitMask | None
    auto_flush: bool


def request_of(
    host: Host,
    sampler: Sampler,
    max_tokens: int | None,
    logit_mask: LogitMask | None,
    decode: Mapping[str, bool] | None,
    whole: bool,
    options: Options,
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The request, and what to call when it was made: it gives a mask back that was made for it."""
    request: dict[str, Any] = {"sampler": sampler.request(), "whole": whole}
    if max_tokens is not None:
        request["max_tokens"] = max_tokens
    if decode is not None:
        request["decode"] = decode
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}; there are {', '.join(_OPTIONS)}")
    for name, value in options.items():
        if value is not None:
            _OPTIONS[name](request, value)
    return request, _restrict(host, request, logit_mask)


def _stop(request: dict[str, Any], field: str, values: Any) -> None:
    if isinstance(values, str):
        raise TypeError(f"stop is a list of texts: [{values!r}]")
    request.setdefault("stop", {})[field] = list(values)


_OPTIONS: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "stop": lambda request, value: _stop(request, "strings", value),
    "stop_tokens": lambda request, value: _stop(request, "tokens", value),
    "logprobs": lambda request, value: request.update(logprobs=value),
    "adapter": lambda request, value: request.update(adapter=value._handle),
    "zo_seed": lambda request, value: request.update(zo_seed=value),
    "draft": lambda request, value: request.update(draft=value.request()),
    "penalties": lambda request, value: request.update(penalties=value.request()),
    "timeout": lambda request, value: request.update(timeout=value),
}


def _restrict(host: Host, request: dict[str, Any], logit_mask: LogitMask | None) -> Callable[[], None]:
    if isinstance(logit_mask, Matcher):
        request["matcher"] = logit_mask._handle
    elif isinstance(logit_mask, Grammar):
        request["grammar"] = logit_mask.request()
    else:
        return mask_into(host, request, "mask", logit_mask)
    return _nothing


def mask_into(host: Host, request: dict[str, Any], field: str, mask: Sequence[int] | None) -> Callable[[], None]:
    """Put the number of *mask* into *request*; what is returned gives it back, where it was made here."""
    if isinstance(mask, Mask):
        request[field] = mask._handle
        return _nothing
    if mask is None:
        return _nothing
    if callable(mask):
        raise TypeError(
            "logit_mask: no function; ask it between generations of max_tokens=1, and give the mask it says"
        )
    if not _is_list(mask):
        raise TypeError(f"logit_mask: run lengths, a Mask, a Matcher or a Grammar, not {mask!r}")
    if not len(mask):
        return _nothing
    handle = host.grammars.create_mask(pack_ids(mask))
    request[field] = handle
    return lambda: host.grammars.release_mask(handle)


def _is_list(mask: object) -> bool:
    """Arrays of other libraries too; texts, and what has no order or no length, are none."""
    return not isinstance(mask, (str, bytes)) and (isinstance(mask, Sequence) or hasattr(mask, "tolist"))


def _nothing() -> None:
    """Nothing is to be given back."""


@dataclass(frozen=True, slots=True)
class Item:
    """What one step, or a whole generation, gave. ``finish``: stop or length, at the end only."""

    tokens: list[int]
    events: list[AnyEvent]
    logprobs: list[TokenLogprob]
    finish: str | None

    @classmethod
    def parse(cls, text: str) -> Item:
        """From the form in which a host gives it, a JSON object."""
        item = json.loads(text)
        return cls(
            item.get("tokens", []),
            events_of(item.get("events", [])),
            logprobs_of(item.get("logprobs", [])),
            item.get("finish"),
        )


def logprobs_of(rows: Iterable[Sequence[Any]]) -> list[TokenLogprob]:
    """From the form in which a host gives them: the fields of each in a list."""
    return [TokenLogprob(token, logprob, [(id_, value) for id_, value in top]) for token, logprob, top in rows]
