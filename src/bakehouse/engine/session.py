"""What one program may do with one model: plain methods that answer at once, or with a future or a stream.

May be called from any thread. What only touches tables and buffers happens at once, under the model's lock. `handle`
has the same methods in async.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.generate import Generation, Surroundings
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.jobs import FlushJob, ForwardJob
from bakehouse.engine.params import ForwardOutput, ForwardRequest, GenerateRequest, Sampler
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Pass, Want
from bakehouse.engine.session_adapters import AdapterCalls
from bakehouse.engine.session_base import Held, SessionLimits
from bakehouse.engine.session_contexts import ContextCalls
from bakehouse.engine.session_matchers import MatcherCalls
from bakehouse.engine.streams import GenerateJob, Stream

__all__ = ["Session", "SessionLimits"]


class Session(ContextCalls, MatcherCalls, AdapterCalls):
    """See the module. Ids are of this session only. After `close` every call is `NotFound`."""

    # Running the model

    def flush(self, context: int) -> Future[None]:
        with self._loop.lock:
            job = FlushJob(self._loop, self._still(context), self.owner)
            self._submit(job)
        return job.future

    def forward(self, request: ForwardRequest) -> Future[ForwardOutput]:
        self._check_tokens("tokens", request.tokens)
        self._check_tokens("draft_tokens", request.draft_tokens)
        mask = self._mask(request.logit_mask)
        with self._loop.lock:
            self._check_open()
            self._check_adapter(request.adapter, request.zo_seed)
            context = None if request.context is None else self._still(request.context)
            deadline = self._deadline(request.timeout)
            job = ForwardJob(self._loop, request, context, self._builder(request, context, mask, deadline), deadline)
            self._submit(job)
        return job.future

    def generate(self, request: GenerateRequest) -> Stream:
        self._check_tokens("stop.tokens", request.stop.tokens or ())
        self._check_tokens("penalties.bias", [token for token, _ in request.penalties.bias])
        matcher = None if request.grammar is None else self._served.grammars.matcher(request.grammar, self.owner)
        mask = self._mask(request.logit_mask)
        with self._loop.lock:
            context = self._still(request.context)
            self._check_adapter(request.adapter, request.zo_seed)
            held = None if request.matcher is None else self._matcher(request.matcher)
            matcher = matcher if held is None else held.matcher.copy()
            deadline = self._deadline(request.timeout)
            generation = Generation(request, self._around(request, context, matcher, mask, deadline))
            job = GenerateJob(generation, context, self._loop, deadline)
            self._submit(job)
            self._open_stream(context, job, held)
        return job.stream

    def _around(
        self,
        request: GenerateRequest,
        context: Context,
        matcher: Matcher | None,
        mask: bytes | None,
        deadline: float | None,
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
            aside=partial(self._loop.run_aside, self.owner),
            mask=mask,
            matcher=matcher,
            decoder=self._decoder_for(decode) if decode else None,
            adapter=lambda: (self._slot(request.adapter), self._weights(request.adapter)),
            deadline=deadline,
        )

    def _open_stream(self, context: Context, job: GenerateJob, held: Held | None) -> None:
        self._served.streams[context] = job.stream
        if held is not None:
            held.lent = True

        def closed(stream: Stream) -> None:
            self._served.streams.pop(context, None)
            if held is not None:
                held.lent = False
                held.matcher.accept(job.generation.produced[: stream.taken])

        job.stream.when_closed(closed)

    def _builder(
        self, request: ForwardRequest, context: Context | None, mask: bytes | None, deadline: float | None
    ) -> Callable[[], Pass]:
        seeds = [_seed(at.sampler) for at in request.samplers]

        def build() -> Pass:
            last = -1 if context is None or context.last_position is None else context.last_position
            positions = request.positions or range(last + 1, last + 1 + len(request.tokens))
            self._check_positions(positions, request)
            return Pass(
                owner=self.owner,
                program=self.program,
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
                every_draft=True,
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
            self._decoders.clear()
            self._jobs.clear()
            self._planner.contexts.end_program(self.program)
        if self._served.adapters is not None:
            self._served.adapters.end_program(self.program)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seed(sampler: Sampler) -> int:
    """The sampler's own, or for an unseeded one a random one: 64 bits, never 0."""
    return sampler.seed or secrets.randbits(63) + 1
