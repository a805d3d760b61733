"""What one program may do with one model: plain methods that answer at once, or with a future or a stream.

May be called from any thread. What only touches tables and buffers happens at once, under the model's lock. `handle`
has the same methods in async.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bakehouse.engine import brle
from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.table import AdapterTable
from bakehouse.engine.brle import Brle
from bakehouse.engine.chat.base import EMPTY, Turn
from bakehouse.engine.chat.tools import declaration
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.generate import Generation, Surroundings
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.jobs import FlushJob, ForwardJob, GenerateJob, Stream
from bakehouse.engine.loop import Job
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import (
    ContextState,
    ForwardOutput,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    ModelInfo,
    Sampler,
)
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass, Want

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold at one time."""

    contexts: int = 1024
    matchers: int = 1024
    jobs: int = 4096


@dataclass(slots=True)
class _Held:
    """A matcher of the caller's; ``lent`` to a generation it cannot be used."""

    matcher: Matcher
    lent: bool = False


class Session:
    """See the module. Ids are of this session only. After `close` every call is `NotFound`."""

    def __init__(self, served: ServedModel, owner: str, program: str = "", limits: SessionLimits | None = None) -> None:
        self.model: ModelInfo = served.info
        self.owner = owner
        self.program = f"{program or 'session'}-{secrets.token_hex(8)}"
        self.limits = limits or SessionLimits()
        self._served = served
        self._loop = served.loop
        self._planner = served.planner
        self._contexts: dict[int, Context] = {}
        self._matchers: dict[int, _Held] = {}
        self._matcher_ids = itertools.count(1)
        self._jobs: set[Job] = set()
        self._sweep_at = 64
        self._closed = False

    # Tokenizer

    def encode(self, text: str) -> list[int]:
        return self._served.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._served.tokenizer.decode(tokens)

    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        return self._served.tokenizer.vocabulary

    def special_tokens(self) -> tuple[list[int], list[bytes]]:
        ids = sorted(self._served.tokenizer.special_ids)
        return ids, [self._served.tokenizer.token_bytes(token) for token in ids]

    def split_regex(self) -> str:
        return self._served.tokenizer.split_regex()

    # Contexts

    def create_context(self, name: str | None = None) -> int:
        with self._loop.lock:
            self._check_room()
            created = self._planner.contexts.create(self.owner, name, self.program)
            created.transcript = EMPTY
            return self._keep(created)

    def lookup_context(self, name: str) -> int | None:
        with self._loop.lock:
            self._check_open()
            found = self._planner.contexts.lookup(self.owner, name, self.program)
            return None if found is None else self._keep(found)

    def fork_context(self, context: int, name: str | None = None) -> int:
        """While a stream of the context is open, the child is as if the stream had been closed now."""
        with self._loop.lock:
            self._check_room()
            parent = self._context(context)
            child = self._planner.contexts.fork(parent, name, self.program)
            stream = self._served.streams.get(parent)
            if stream is not None:
                stream.cut_fork(child)
            return self._keep(child)

    def release_context(self, context: int) -> None:
        with self._loop.lock:
            found = self._context(context)
            self._cancel_all(self._loop.jobs_of(found))
            stream = self._served.streams.pop(found, None)
            if stream is not None:
                stream.close()
            self._planner.contexts.release(found)
            del self._contexts[context]

    def context_state(self, context: int) -> ContextState:
        with self._loop.lock:
            found = self._context(context)
            return ContextState(
                id=found.id,
                name=found.name,
                committed_pages=found.committed_pages,
                cursor=found.cursor,
                buffered=tuple(found.buffered),
                last_position=found.last_position,
                page_size=self.model.page_size,
            )

    def append_tokens(self, context: int, tokens: Sequence[int]) -> None:
        self._check_tokens("tokens", tokens)
        with self._loop.lock:
            found = self._still(context)
            found.buffered.extend(tokens)
            found.transcript = found.transcript.wrote(tokens)

    def set_buffer(self, context: int, tokens: Sequence[int]) -> None:
        self._check_tokens("tokens", tokens)
        with self._loop.lock:
            self._cut(context).buffered[:] = tokens

    def set_cursor(self, context: int, cursor: int) -> None:
        with self._loop.lock:
            self._cut(context).set_cursor(cursor)

    def reserve_pages(self, context: int, count: int) -> None:
        with self._loop.lock:
            self._idle(context).reserve_pages(count)

    def release_pages(self, context: int, count: int) -> None:
        with self._loop.lock:
            self._cut(context).release_pages(count)

    def commit_pages(self, context: int, indices: Sequence[int]) -> None:
        with self._loop.lock:
            self._idle(context).commit_pages(indices)

    # Chat

    def system(self, context: int, text: str) -> None:
        self._turn(context, Turn("system", text))

    def user(self, context: int, text: str) -> None:
        self._turn(context, Turn("user", text))

    def assistant(self, context: int, text: str) -> None:
        self._turn(context, Turn("assistant", text))

    def cue(self, context: int) -> None:
        self._turn(context, Turn("cue", ""))

    def seal(self, context: int) -> None:
        with self._loop.lock:
            found = self._still(context)
            if not found.buffered or found.buffered[-1] not in self._served.chat.stop_tokens:
                self.append_tokens(context, [self._served.chat.turn_end])

    def equip_tools(self, context: int, tools: Sequence[str]) -> None:
        self._turn(context, declaration(tools))

    def answer_tool(self, context: int, name: str, value: str) -> None:
        self._turn(context, Turn("tool", value, name))

    def _turn(self, context: int, turn: Turn) -> None:
        with self._loop.lock:
            found = self._still(context)
            tokens, transcript = self._served.chat.add(found.transcript, turn)
            found.buffered.extend(tokens)
            found.transcript = transcript

    # Running the model

    def flush(self, context: int) -> Future[None]:
        with self._loop.lock:
            job = FlushJob(self._loop, self._still(context), self.owner)
            self._submit(job)
        return job.future

    def forward(self, request: ForwardRequest) -> Future[ForwardOutput]:
        self._check_tokens("tokens", request.tokens)
        self._check_tokens("draft_tokens", request.draft_tokens)
        with self._loop.lock:
            self._check_open()
            context = None if request.context is None else self._still(request.context)
            deadline = self._deadline(request.timeout)
            job = ForwardJob(self._loop, request, context, self._builder(request, context, deadline), deadline)
            self._submit(job)
        return job.future

    def generate(self, request: GenerateRequest) -> Stream:
        with self._loop.lock:
            context = self._still(request.context)
            held = None if request.matcher is None else self._matcher(request.matcher)
            matcher = None if held is None else held.matcher.copy()
            if request.grammar is not None:
                matcher = self._served.grammars.matcher(request.grammar)
            deadline = self._deadline(request.timeout)
            generation = Generation(request, self._around(request, context, matcher, deadline))
            job = GenerateJob(generation, context, self._loop, deadline)
            self._submit(job)
            self._open_stream(context, job, held)
        return job.stream

    def _around(
        self, request: GenerateRequest, context: Context, matcher: Matcher | None, deadline: float | None
    ) -> Surroundings:
        chat, decode = self._served.chat, request.decode
        stops = request.stop.tokens
        return Surroundings(
            owner=self.owner,
            context=context,
            tokenizer=self._served.tokenizer,
            stops=frozenset(chat.stop_tokens if stops is None else stops),
            max_context=self.model.max_context,
            seed=_seed(request.sampler),
            stream=next(self._served.stream_ids),
            mask=self._mask(request.logit_mask),
            matcher=matcher,
            decoder=chat.decoder(reasoning=decode.reasoning, tool_use=decode.tool_use) if decode else None,
            adapter=self._slot(request.adapter),
            weights=self._weights(request.adapter),
            deadline=deadline,
        )

    def _open_stream(self, context: Context, job: GenerateJob, held: _Held | None) -> None:
        self._served.streams[context] = job.stream
        if held is not None:
            held.lent = True

        def closed(stream: Stream) -> None:
            self._served.streams.pop(context, None)
            if held is not None:
                held.lent = False
                held.matcher.accept(job.generation.produced[: stream.taken])

        job.stream.when_closed(closed)

    def _builder(self, request: ForwardRequest, context: Context | None, deadline: float | None) -> Callable[[], Pass]:
        mask = self._mask(request.logit_mask)
        seeds = [_seed(at.sampler) for at in request.samplers]

        def build() -> Pass:
            last = -1 if context is None or context.last_position is None else context.last_position
            positions = request.positions or range(last + 1, last + 1 + len(request.tokens))
            self._check_positions(positions, request)
            return Pass(
                owner=self.owner,
                context=context,
                tokens=request.tokens,
                positions=request.positions,
                masks=request.masks,
                wants=[
                    Want(
                        index,
                        at.sampler,
                        seed=seed,
                        draw=positions[index],
                        mask=mask,
                        logprobs=request.logprobs,
                        want_logprob=request.logprobs > 0,
                    )
                    for at, seed in zip(request.samplers, seeds, strict=True)
                    for index in at.indices
                ],
                drafts=request.draft_tokens,
                draft_positions=request.draft_positions,
                adapter=self._slot(request.adapter),
                generation=self._weights(request.adapter),
                zo_seed=request.zo_seed,
                priority=request.priority,
                deadline=deadline,
                stream=next(self._served.stream_ids),
            )

        return build

    def _check_positions(self, positions: Sequence[int], request: ForwardRequest) -> None:
        drafts = request.draft_positions or (max(positions) + len(request.draft_tokens),)
        highest = max(*positions, *drafts)
        if highest >= self.model.max_context:
            raise BadRequest.at(
                "positions", f"position {highest} is beyond the model's longest context, {self.model.max_context}"
            )

    # Grammars

    def compile(self, grammar: GrammarSpec) -> Future[Matcher]:
        """Compile on a worker thread, into the cache."""
        return self._loop.run_aside(lambda: self._served.grammars.matcher(grammar))

    def create_matcher(self, grammar: GrammarSpec) -> Future[int]:
        """Compiles on a worker thread."""
        with self._loop.lock:
            self._check_open()
            if len(self._matchers) >= self.limits.matchers:
                raise LimitExceeded(f"a session has at most {self.limits.matchers} matchers; release some")

        def compile_() -> int:
            matcher = self._served.grammars.matcher(grammar)
            with self._loop.lock:
                identity = next(self._matcher_ids)
                self._matchers[identity] = _Held(matcher)
            return identity

        return self._loop.run_aside(compile_)

    def matcher_mask(self, matcher: int) -> Brle:
        return brle.from_bits(self._usable(matcher).mask(), self.model.vocab_size)

    def matcher_accept(self, matcher: int, tokens: Sequence[int]) -> None:
        self._check_tokens("tokens", tokens)
        self._usable(matcher).accept(tokens)

    def matcher_terminated(self, matcher: int) -> bool:
        return self._usable(matcher).terminated

    def matcher_reset(self, matcher: int) -> None:
        self._usable(matcher).reset()

    def release_matcher(self, matcher: int) -> None:
        with self._loop.lock:
            self._usable(matcher)
            del self._matchers[matcher]

    # Adapters: what changes weights runs between two steps

    def create_adapter(self, name: str) -> Future[int]:
        table = self._adapters()
        return self._between_steps(lambda: table.create(name).id)

    def lookup_adapter(self, name: str) -> int | None:
        found = self._adapters().lookup(name)
        return None if found is None else found.id

    def clone_adapter(self, adapter: int, name: str) -> Future[int]:
        table = self._adapters()
        return self._between_steps(lambda: table.clone(adapter, name).id)

    def remove_adapter(self, adapter: int) -> Future[None]:
        table = self._adapters()

        def remove() -> None:
            self._loop.require_unused(table.get(adapter).slot)
            table.remove(adapter, self.program)

        return self._between_steps(remove)

    def lock_adapter(self, adapter: int) -> bool:
        return self._adapters().acquire(adapter, self.program)

    def unlock_adapter(self, adapter: int) -> None:
        self._adapters().release(adapter, self.program)

    def load_adapter(self, adapter: int, path: str) -> Future[None]:
        return self._change(adapter, lambda table: table.load(adapter, Path(path), self.program))

    def save_adapter(self, adapter: int, path: str) -> Future[None]:
        table = self._adapters()
        return self._between_steps(lambda: table.save(adapter, Path(path)))

    def initialize_zo(self, adapter: int, params: ZoParams) -> Future[None]:
        return self._change(adapter, lambda table: table.initialize_zo(adapter, params, self.program))

    def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0
    ) -> Future[None]:
        return self._change(adapter, lambda table: table.update_zo(adapter, scores, seeds, max_sigma, self.program))

    def _change(self, adapter: int, change: Callable[[AdapterTable], None]) -> Future[None]:
        table = self._adapters()

        def run() -> None:
            change(table)
            self._loop.weights_changed(table.get(adapter).slot, table.generation(adapter))

        return self._between_steps(run)

    def _between_steps(self, function: Callable[[], T]) -> Future[T]:
        return self._loop.call(function)

    def _adapters(self) -> AdapterTable:
        self._check_open()
        if self._served.adapters is None:
            raise BadRequest.at("adapter", f"model {self.model.name} takes no adapters")
        return self._served.adapters

    def _slot(self, adapter: int | None) -> int | None:
        return None if adapter is None else self._adapters().get(adapter).slot

    def _weights(self, adapter: int | None) -> int:
        return 0 if adapter is None else self._adapters().generation(adapter)

    # The end

    def close(self) -> None:
        """Cancel what runs and free what is held; contexts that it named stay. May be repeated."""
        with self._loop.lock:
            if self._closed:
                return
            self._closed = True
            self._cancel_all(self._jobs)
            for context in self._contexts.values():
                stream = self._served.streams.get(context)
                if stream is not None and stream.job in self._jobs:
                    stream.close()
            self._contexts.clear()
            self._matchers.clear()
            self._jobs.clear()
            self._planner.contexts.end_program(self.program)
        if self._served.adapters is not None:
            self._served.adapters.end_program(self.program)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Checks; those of contexts with the lock held

    def _check_open(self) -> None:
        if self._closed:
            raise NotFound("the session is closed")

    def _check_room(self) -> None:
        self._check_open()
        if len(self._contexts) >= self.limits.contexts:
            raise LimitExceeded(f"a session has at most {self.limits.contexts} contexts; release some")

    def _keep(self, context: Context) -> int:
        self._contexts[context.id] = context
        return context.id

    def _context(self, context: int) -> Context:
        self._check_open()
        found = self._contexts.get(context)
        if found is None or found.released:
            self._contexts.pop(context, None)
            raise NotFound(f"there is no context {context}", field="context")
        return found

    def _still(self, context: int) -> Context:
        """A context with no open stream: its buffer may grow."""
        found = self._context(context)
        if found in self._served.streams:
            raise BadRequest.at("context", f"context {context} is generating; read its stream to the end or close it")
        return found

    def _idle(self, context: int) -> Context:
        """A context on which nothing runs or waits: its buffer and KV may be cut."""
        found = self._still(context)
        self._loop.require_idle(found)
        return found

    def _cut(self, context: int) -> Context:
        """An idle context that is about to lose tokens, so that its turns are no longer known."""
        found = self._idle(context)
        found.transcript = replace(found.transcript, plain=True)
        return found

    def _matcher(self, matcher: int) -> _Held:
        self._check_open()
        held = self._matchers.get(matcher)
        if held is None:
            raise NotFound(f"there is no matcher {matcher}", field="matcher")
        if held.lent:
            raise BadRequest.at("matcher", f"matcher {matcher} is in use by a generation; read its stream to the end")
        return held

    def _usable(self, matcher: int) -> Matcher:
        with self._loop.lock:
            return self._matcher(matcher).matcher

    def _check_tokens(self, field: str, tokens: Sequence[int]) -> None:
        size = self.model.vocab_size
        for token in tokens:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < size:
                raise BadRequest.at(field, f"{token!r} is no id of a vocabulary of {size}")

    def _mask(self, runs: Brle | None) -> bytes | None:
        """Packed; None where all is allowed. An empty list restricts nothing."""
        if not runs:
            return None
        bits = brle.to_bits(runs, self.model.vocab_size)
        if not any(bits):
            raise BadRequest.at("logit_mask", "allows no id")
        return bits

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._loop.clock() + timeout

    # Jobs

    def _submit(self, job: Job) -> None:
        if len(self._jobs) >= self._sweep_at:
            self._jobs = {running for running in self._jobs if not running.ended}
            self._sweep_at = max(64, 2 * len(self._jobs))
        if len(self._jobs) >= self.limits.jobs:
            raise LimitExceeded(f"a session runs at most {self.limits.jobs} passes and generations at one time")
        self._loop.submit(job)
        self._jobs.add(job)

    def _cancel_all(self, jobs: Sequence[Job] | set[Job]) -> None:
        for job in list(jobs):
            self._loop.cancel(job)


def _seed(sampler: Sampler) -> int:
    """The sampler's own, or for an unseeded one a random one: 64 bits, never 0."""
    return sampler.seed or secrets.randbits(63) + 1
