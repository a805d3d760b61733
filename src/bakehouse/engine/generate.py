"""The coarse loop as data: what a generation has, what it runs next, and what each step gave.

No lock, no thread, no queue: `jobs.GenerateJob` drives it. A generation samples **accepted** tokens; those that no stop
rule drops are **produced**, and once no stop string can touch them any more they are **yielded** in a chunk. KV holds
all accepted tokens but the last, which is buffered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from bakehouse.engine.chat.base import EMPTY
from bakehouse.engine.decoding import EventDecoder
from bakehouse.engine.drafts import NGrams, Pace
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.params import Chunk, Event, FinishReason, GenerateRequest, TokenLogprobs
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass, Want
from bakehouse.engine.stopping import StopStrings
from bakehouse.engine.tokenizer.base import Tokenizer

Sampled = tuple[int, TokenLogprobs | None]

#: Longer prompts are indexed for drafts on another thread: this many tokens take a third of a millisecond.
INDEXED_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a generation needs besides its request.

    ``seed`` is never 0. ``adapter`` gives the slot and which weights it has now: they may change between two passes.
    ``aside`` runs a function on another thread.
    """

    owner: str
    context: Context
    tokenizer: Tokenizer
    stops: frozenset[int]
    max_context: int
    seed: int
    stream: int
    aside: Callable[[Callable[[], NGrams]], Future[NGrams]]
    mask: bytes | None = None
    matcher: Matcher | None = None
    decoder: EventDecoder | None = None
    adapter: Callable[[], tuple[int | None, int]] = lambda: (None, 0)
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that one step released; ``rest`` is the text before a stop string that was found."""

    ready: list[Sampled]
    rest: bytes
    finish: FinishReason | None


class Generation:
    """One generation, from its first pass to its end."""

    def __init__(self, request: GenerateRequest, around: Surroundings) -> None:
        self.request = request
        self.finish: FinishReason | None = None
        self.produced: list[int] = []
        self.stop_token: int | None = None
        self.yielded = 0
        self._around = around
        self._prompt: list[int] = []
        self._limit = 0
        self._base = 0
        self._last = 0  # position of the last buffered token
        self._transcript = EMPTY
        self._index: Future[NGrams] | None = None
        self._indexed = 0
        self._pace, self._drafted = Pace(), 0
        self._strings: StopStrings[Sampled] = StopStrings(
            request.stop.strings, lambda sampled: around.tokenizer.token_bytes(sampled[0])
        )

    # Passes

    def first(self) -> Pass:
        """The pass over what is buffered. Raises `BadRequest` for an empty buffer or one that the model cannot hold."""
        context = self._around.context
        buffered = list(context.buffered)
        if not buffered:
            raise BadRequest.at("context", "generate requires at least one buffered token")
        last = (-1 if context.last_position is None else context.last_position) + len(buffered)
        if last >= self._around.max_context:
            raise BadRequest.at(
                "context",
                f"{last + 1} positions are more than the model's {self._around.max_context}; shorten the prompt",
            )
        self._limit = self._around.max_context - last
        if self.request.max_tokens is not None:
            self._limit = min(self._limit, self.request.max_tokens)
        self._base = len(context.tokens) + len(buffered)
        self._last = last
        self._transcript = context.transcript
        self._remember(buffered)
        return self._pass(buffered)

    def _remember(self, buffered: list[int]) -> None:
        if self.request.penalties.needs_history or self.request.draft is not None:
            self._prompt = [*self._around.context.tokens, *buffered]
        else:
            self._prompt = buffered[-1:]
        lookup, prompt = self.request.draft, self._prompt
        if lookup is None:
            return
        if len(prompt) <= INDEXED_AT_ONCE:
            self._index = Future()
            self._index.set_result(NGrams(lookup, prompt))
        else:
            self._index = self._around.aside(lambda: NGrams(lookup, prompt))

    def following(self) -> Pass:
        """The pass over the newest token, which is not in KV yet, and over drafts."""
        return self._pass(self.produced[-1:])

    def _pass(self, tokens: list[int]) -> Pass:
        around, request = self._around, self.request
        drafts = self._draft()
        self._drafted = len(drafts)
        slot, weights = around.adapter()
        want = Want(
            len(tokens) - 1,
            request.sampler,
            seed=around.seed,
            draw=self._last + len(self.produced),
            mask=around.mask,
            penalties=request.penalties,
            prompt=self._prompt if request.penalties.needs_history else (),
            generated=self.produced,
            logprobs=request.logprobs,
            want_logprob=request.logprobs > 0,
        )
        return Pass(
            owner=around.owner,
            context=around.context,
            tokens=tokens,
            wants=[want],
            drafts=drafts,
            mask_source=around.matcher,
            adapter=slot,
            generation=weights,
            zo_seed=request.zo_seed,
            priority=request.priority,
            deadline=around.deadline,
            stream=around.stream,
        )

    def _draft(self) -> tuple[int, ...]:
        """None as long as the prompt is not indexed yet, which takes some milliseconds where it is long."""
        if self._index is None or not self._index.done():
            return ()
        drafts = self._index.result()
        drafts.extend(self.produced[self._indexed :])
        self._indexed = len(self.produced)
        proposed = drafts.propose(min(self._pace.count, self._limit - self._indexed - 1))
        stop = next((at for at, token in enumerate(proposed, 1) if token in self._around.stops), len(proposed))
        return proposed[: self._strings.useful([(token, None) for token in proposed[:stop]])]

    # Results

    def advance(self, outcome: Outcome, drafted: bool) -> Piece:
        """Take in what a pass gave; what is held back is in a later piece. Sets `finish` at the end."""
        sampled = _sampled(outcome, drafted)
        self._pace.tried(self._drafted, len(sampled) - 1)
        ready: list[Sampled] = []
        rest = b""
        for token, logprobs in sampled:
            if self._stops_at(token):
                self.finish, self.stop_token = FinishReason.STOP, token
                break
            self.produced.append(token)
            released = self._strings.feed((token, logprobs))
            ready += released.items
            if released.hit:
                self.finish, rest = FinishReason.STOP, released.rest
                break
            if len(self.produced) >= self._limit:
                matcher = self._around.matcher
                whole = matcher is not None and matcher.finished
                self.finish = FinishReason.STOP if whole else FinishReason.LENGTH
                break
        if self.finish is not None:
            ready += self._strings.finish()
        self.yielded += len(ready)
        return Piece(ready, rest, self.finish)

    def _stops_at(self, token: int) -> bool:
        if token in self._around.stops:
            return True
        matcher = self._around.matcher
        if matcher is None:
            return False
        matcher.accept([token])
        return matcher.terminated

    # Chunks: pieces in their order, on a thread of its own

    def chunk(self, piece: Piece) -> Chunk | None:
        """What the reader gets of *piece*, if anything."""
        tokens = tuple(token for token, _ in piece.ready)
        logprobs = tuple(entry for _, entry in piece.ready if entry is not None)
        events = tuple(self._events(tokens, piece))
        if not (tokens or events or piece.finish):
            return None
        return Chunk(tokens, events, logprobs, piece.finish)

    def _events(self, tokens: tuple[int, ...], piece: Piece) -> Iterable[Event]:
        decoder = self._around.decoder
        if decoder is None:
            return ()
        rest = piece.rest.decode("utf-8", "ignore")
        events = decoder.feed([*tokens, *self._around.tokenizer.encode(rest)] if rest else tokens)
        return events + decoder.finish() if piece.finish is not None else events

    # The context afterwards

    def trim(self, kept: int, context: Context | None = None) -> None:
        """Make the context, or a fork of it, hold its prompt and the first *kept* produced tokens, the last buffered.

        A stop token that ended the generation counts as one more. It goes by what the context holds now, and so may be
        called between a commit and `advance`, from another thread. Lock held.
        """
        context = context or self._around.context
        if context.released or not self._base or len(context.tokens) < self._base:
            return  # its first pass did not get to its end
        surplus = len(context.tokens) + 1 - self._base - kept
        tokens = self.produced if self.stop_token is None else [*self.produced, self.stop_token]
        if surplus > 0:
            context.rewind(surplus)
        context.buffered[:] = [tokens[kept - 1] if kept else self._prompt[-1]]
        context.transcript = self._transcript.wrote(tokens[:kept])

    @property
    def kept(self) -> int:
        """How many accepted tokens the context keeps when every chunk is taken, see `trim`."""
        return self.yielded + (self.stop_token is not None)


def _sampled(outcome: Outcome, drafted: bool) -> list[Sampled]:
    if drafted:
        return [
            (token, result.logprobs) for token, result in zip(outcome.accepted, outcome.accepted_results, strict=True)
        ]
    (result,) = outcome.results
    if not isinstance(result.value, int):
        raise TypeError(f"a token sampler gave {type(result.value).__name__}")
    return [(result.value, result.logprobs)]
