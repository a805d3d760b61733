"""What callers say to the engine and what it answers: frozen values, checked when they are made. Standard library only.

Ids of tokens are non-negative integers below the model's vocabulary size. Seeds are 64-bit. Times are seconds.
A mask over the vocabulary is run lengths, or `bytes`: packed as `brle.to_bits` packs it, which costs no conversion.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from reprlib import repr as brief
from typing import Literal

from bakehouse.engine import brle
from bakehouse.engine.brle import Brle
from bakehouse.engine.errors import BadRequest


class SamplerKind(StrEnum):
    MULTINOMIAL = "multinomial"
    TOP_K = "top_k"
    TOP_P = "top_p"
    MIN_P = "min_p"
    TOP_K_TOP_P = "top_k_top_p"
    EMBEDDING = "embedding"
    DIST = "dist"


#: Kinds whose result is a token.
TOKEN_KINDS = frozenset(set(SamplerKind) - {SamplerKind.EMBEDDING, SamplerKind.DIST})

#: Below this temperature every kind that yields tokens takes the most likely one.
GREEDY_BELOW = 1e-5

MAX_LOGPROBS = 64

#: Stop strings of one generation, and the characters of each: all of them are looked for with each token.
MAX_STOPS, MAX_STOP = 64, 1024

#: Priorities lie between this and its negative; 0 is usual.
MAX_PRIORITY = 2**31 - 1


def _tuple(owner: object, field: str, name: str = "") -> None:
    """Make the field of *owner* a tuple, whatever sequence its caller gave: requests are kept, and must not change."""
    value = getattr(owner, field)
    if isinstance(value, tuple):
        return
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise BadRequest.at(name or field, f"must be a sequence, not {brief(value)}")
    object.__setattr__(owner, field, tuple(value))


def _instance(name: str, value: object, kind: type[object]) -> None:
    if not isinstance(value, kind):
        raise BadRequest.at(name, f"must be a {kind.__name__}, not {brief(value)}")


def _number(name: str, value: object, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest.at(name, f"must be a finite number, not {brief(value)}")
    if not low <= value <= high:
        raise BadRequest.at(name, f"must be {low} or more" + ("" if high == math.inf else f" and at most {high}"))


def _integer(name: str, value: object, low: int | None, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest.at(name, f"must be an integer, not {brief(value)}")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"be {low} or more" if high is None else f"lie between {low} and {high}"
        raise BadRequest.at(name, f"must {bounds}, not {value}")


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one result is taken from one row of logits.

    Temperature divides the logits before the softmax, filters act on the probabilities after it, then one draw is made.
    A filter that is set acts whatever the kind, in the order top_k, top_p, min_p, each on what the one before left; 0,
    1 and 0 set none. ``seed`` 0 means unseeded. ``entries`` is of ``dist`` only: how many of the most likely ids are
    returned, 0 for all; its temperature 0 means unscaled. Filters are of kinds that yield a token only.
    """

    kind: SamplerKind = SamplerKind.MULTINOMIAL
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    entries: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _kind(self.kind))
        _number("temperature", self.temperature, 0)
        _number("top_p", self.top_p, 0, 1)
        _number("min_p", self.min_p, 0, 1)
        _integer("top_k", self.top_k, 0)
        _integer("seed", self.seed, -(2**63), 2**64 - 1)
        _integer("entries", self.entries, 0)
        self._check_kind()

    def _check_kind(self) -> None:
        if not self.yields_token and (self.top_k or self.top_p != 1 or self.min_p):
            raise BadRequest.at("kind", f"{self.kind} takes no top_k, top_p or min_p")
        if self.entries and self.kind is not SamplerKind.DIST:
            raise BadRequest.at("entries", f"{self.kind} returns no distribution; entries is of {SamplerKind.DIST}")

    @property
    def greedy(self) -> bool:
        return self.kind in TOKEN_KINDS and self.temperature < GREEDY_BELOW

    @property
    def yields_token(self) -> bool:
        return self.kind in TOKEN_KINDS


def _kind(value: object) -> SamplerKind:
    try:
        return SamplerKind(str(value))
    except ValueError:
        raise BadRequest.at("kind", f"unknown sampler {brief(value)}; there are {', '.join(SamplerKind)}") from None


GREEDY = Sampler(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Penalties:
    """What is done to logits before temperature, from the tokens the row's sequence holds already.

    ``repetition`` divides positive logits of seen ids and multiplies negative ones (1 changes nothing); ``frequency``
    subtracts itself per occurrence in the generated part, ``presence`` once; ``bias`` adds to single ids. They have
    the meaning of transformers and of the OpenAI API.
    """

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _number("repetition", self.repetition, 1e-3, 1e3)
        _number("frequency", self.frequency, -100, 100)
        _number("presence", self.presence, -100, 100)
        _tuple(self, "bias")
        for pair in self.bias:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise BadRequest.at("bias", f"must hold pairs of an id and a number, not {pair!r}")
            _integer("bias", pair[0], 0)
            _number("bias", pair[1], -1e4, 1e4)

    @property
    def needs_history(self) -> bool:
        return self.repetition != 1.0 or self.frequency != 0.0 or self.presence != 0.0

    @property
    def idle(self) -> bool:
        return not self.needs_history and not self.bias


NO_PENALTIES = Penalties()

GrammarKind = Literal["json_schema", "json", "regex", "ebnf"]


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """A grammar by its text; ``source`` is empty for any JSON."""

    kind: GrammarKind
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("json_schema", "json", "regex", "ebnf"):
            raise BadRequest.at("grammar.kind", f"unknown kind {self.kind!r}")
        if not isinstance(self.source, str):
            raise BadRequest.at("grammar.source", "must be text")


@dataclass(frozen=True, slots=True)
class SampleAt:
    """Attach *sampler* to *indices*, counted from 0 within the pass's input tokens; one result per index, in order."""

    indices: tuple[int, ...]
    sampler: Sampler

    def __post_init__(self) -> None:
        _tuple(self, "indices", "samplers.indices")
        _instance("samplers.sampler", self.sampler, Sampler)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRequest:
    """One pass of the model over given tokens.

    With a context the tokens extend it; without one the pass has no history and leaves none. ``positions`` absent means
    they run on from the context's last position. ``masks`` absent means causal, else one per input and draft token.
    ``draft_tokens`` come after the input and are verified against the sampler at the input's last index.
    """

    context: int | None = None
    tokens: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None
    masks: tuple[Brle, ...] | None = None
    logit_mask: Brle | bytes | None = None
    samplers: tuple[SampleAt, ...] = ()
    draft_tokens: tuple[int, ...] = ()
    draft_positions: tuple[int, ...] | None = None
    speculative_output: bool = True
    adapter: int | None = None
    zo_seed: int = 0
    logprobs: int = 0
    priority: int = 0
    timeout: float | None = None

    def __post_init__(self) -> None:
        self._freeze()
        if not self.tokens:
            raise BadRequest.at("tokens", "a pass needs at least one input token")
        if self.draft_tokens and not any(
            len(self.tokens) - 1 in s.indices and s.sampler.yields_token for s in self.samplers
        ):
            raise BadRequest.at(
                "draft_tokens", "drafts are verified by a token sampler at the last input index; attach one"
            )
        _one_each("positions", self.positions, len(self.tokens))
        _one_each("draft_positions", self.draft_positions, len(self.draft_tokens))
        _one_each("masks", self.masks, len(self.tokens) + len(self.draft_tokens))
        for at in self.samplers:
            for index in at.indices:
                _integer("samplers.indices", index, 0, len(self.tokens) - 1)
        for position in (*(self.positions or ()), *(self.draft_positions or ())):
            _integer("positions", position, 0)
        _integer("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _shared_fields(self.logprobs, self.adapter, self.zo_seed, self.timeout)

    def _freeze(self) -> None:
        """Sequences become tuples, and the elements that are values of their own are looked at."""
        for field_ in ("tokens", "draft_tokens", "samplers"):
            _tuple(self, field_)
        for field_ in ("positions", "draft_positions", "masks"):
            if getattr(self, field_) is not None:
                _tuple(self, field_)
        for at in self.samplers:
            _instance("samplers", at, SampleAt)
        if self.masks is not None:
            masks = tuple(brle.check(f"masks[{index}]", mask) for index, mask in enumerate(self.masks))
            object.__setattr__(self, "masks", masks)
        _check_mask(self)


def _check_mask(request: ForwardRequest | GenerateRequest) -> None:
    if request.logit_mask is not None and not isinstance(request.logit_mask, bytes):
        object.__setattr__(request, "logit_mask", brle.check("logit_mask", request.logit_mask))


def _one_each(name: str, values: Sequence[object] | None, count: int) -> None:
    if values is not None and len(values) != count:
        raise BadRequest.at(name, f"one for each of {count} tokens is needed, not {len(values)}")


def _shared_fields(logprobs: int, adapter: int | None, zo_seed: int, timeout: float | None) -> None:
    _integer("logprobs", logprobs, 0, MAX_LOGPROBS)
    _integer("zo_seed", zo_seed, -(2**63), 2**63 - 1)
    if zo_seed and adapter is None:
        raise BadRequest.at("zo_seed", "a seed perturbs an adapter's weights; name the adapter")
    if timeout is not None:
        _number("timeout", timeout, 0)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms, after masks and penalties, at temperature 1. ``top`` is most likely first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Embedding:
    """The final, normalised hidden state of one token: little-endian float32, ``hidden_size`` of them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Distribution:
    """Ids (unsigned 32-bit) and their probabilities (float32), most likely first."""

    ids: array[int]
    probs: array[float]


Result = int | Embedding | Distribution


@dataclass(frozen=True, slots=True)
class ForwardOutput:
    """``results``: one per sampled index, in the order attached. With drafts ``accepted`` holds the tokens that came
    out of verification (the accepted drafts and one new token), and ``next_drafts`` the engine's own proposal, if any.
    ``logprobs``: of the tokens in ``results``, then of ``accepted`` behind the first.
    """

    results: tuple[Result, ...] = ()
    accepted: tuple[int, ...] = ()
    next_drafts: tuple[int, ...] = ()
    next_positions: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """What ends a generation. ``tokens`` None: the model's own stop ids. A stop string and what follows it are cut."""

    tokens: tuple[int, ...] | None = None
    strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _tuple(self, "strings", "stop.strings")
        if len(self.strings) > MAX_STOPS:
            raise BadRequest.at("stop.strings", f"there may be {MAX_STOPS}, these are {len(self.strings)}")
        for text in self.strings:
            _instance("stop.strings", text, str)
            if len(text) > MAX_STOP:
                raise BadRequest.at("stop.strings", f"a stop string has at most {MAX_STOP} characters")
            if not text:
                raise BadRequest.at("stop.strings", "a stop string cannot be empty")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise BadRequest.at("stop.strings", f"{text!r} holds half of a surrogate pair")
        if self.tokens is not None:
            _tuple(self, "tokens", "stop.tokens")
            for token in self.tokens:
                _integer("stop.tokens", token, 0)


@dataclass(frozen=True, slots=True)
class Decode:
    """Which decoders turn tokens into events."""

    text: bool = True
    reasoning: bool = False
    tool_use: bool = False


@dataclass(frozen=True, slots=True)
class PromptLookup:
    """Draft by n-grams: the longest suffix, of ``shortest`` to ``longest`` tokens, that occurred before proposes what
    followed, at most ``tokens`` of it and fewer while drafts do not hold."""

    tokens: int = 8
    longest: int = 3
    shortest: int = 1

    def __post_init__(self) -> None:
        _integer("draft.tokens", self.tokens, 1, 64)
        _integer("draft.longest", self.longest, 1, 16)
        _integer("draft.shortest", self.shortest, 1, self.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A loop inside the engine: forward, sample, append, until a stop rule holds.

    It starts from what the context has buffered, at least one token. At most one of ``logit_mask`` (the same for each
    token), ``grammar`` and ``matcher`` (an id; it is stepped as if the caller had) may be given.
    """

    context: int
    sampler: Sampler = field(default_factory=Sampler)
    max_tokens: int | None = None
    stop: Stop = field(default_factory=Stop)
    logit_mask: Brle | bytes | None = None
    grammar: GrammarSpec | None = None
    matcher: int | None = None
    penalties: Penalties = NO_PENALTIES
    logprobs: int = 0
    adapter: int | None = None
    zo_seed: int = 0
    draft: PromptLookup | None = None
    decode: Decode | None = None
    priority: int = 0
    timeout: float | None = None

    def __post_init__(self) -> None:
        _instance("sampler", self.sampler, Sampler)
        _instance("stop", self.stop, Stop)
        _instance("penalties", self.penalties, Penalties)
        for name, kind in (("grammar", GrammarSpec), ("draft", PromptLookup), ("decode", Decode)):
            if getattr(self, name) is not None:
                _instance(name, getattr(self, name), kind)
        if not self.sampler.yields_token:
            raise BadRequest.at("sampler", f"{self.sampler.kind} yields no token; use a forward pass")
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 0)
        if sum(x is not None for x in (self.logit_mask, self.grammar, self.matcher)) > 1:
            raise BadRequest.at("grammar", "give one of logit_mask, grammar and matcher")
        _check_mask(self)
        _integer("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _shared_fields(self.logprobs, self.adapter, self.zo_seed, self.timeout)


class FinishReason(StrEnum):
    STOP = "stop"  # a stop token, a stop string, or the end of the grammar
    LENGTH = "length"  # max_tokens, or the model's longest context


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDone:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    pass


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Done:
    text: str


Event = Text | Thinking | ThinkingDone | ToolCallStart | ToolCall | Done


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one step of a generation gave. Stop tokens are in no chunk; the last one carries ``finish``."""

    tokens: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a served model is. ``stop_tokens`` end a turn; ``family`` names its chat format."""

    name: str
    architecture: str
    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    max_context: int
    page_size: int
    pages: int
    dtype: str
    device: str
    stop_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ContextState:
    """Tokens by where they are: committed pages, filled since (the cursor), buffered without KV yet."""

    id: int
    name: str | None
    committed_pages: int
    cursor: int
    buffered: tuple[int, ...]
    last_position: int | None
    page_size: int
