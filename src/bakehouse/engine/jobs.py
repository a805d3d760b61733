"""Jobs whose promise is a future: a flush, and a forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from bakehouse.engine.courier import Job, Notifier
from bakehouse.engine.drafts import NGrams
from bakehouse.engine.errors import DeadlineExceeded, EngineError
from bakehouse.engine.loop import EngineLoop
from bakehouse.engine.params import ForwardOutput, ForwardRequest, PromptLookup
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass

log = logging.getLogger(__name__)

T = TypeVar("T")


class Promise(Future[T]):
    """A future whose work can be given up while it runs."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.give_up = give_up


class FutureJob(Job):
    """A job whose promise is a future."""

    def __init__(self, loop: EngineLoop, context: Context | None, deadline: float | None = None) -> None:
        self.context = context
        self.future: Promise[Any] = Promise(lambda: loop.cancel(self))
        self._deadline = deadline
        self._clock = loop.clock
        self._value: Any = None
        self._error: EngineError | None = None

    def check_time(self) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            raise DeadlineExceeded("its time was over before it could run")

    def end(self, error: EngineError | None) -> None:
        self._error = error

    def deliver(self) -> Notifier | None:
        if not self.ended or self.future.done():
            return None
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._value)
        return None


class FlushJob(FutureJob):
    """Everything buffered but the last token goes through the model."""

    asks_again = True
    branches = True

    def __init__(self, loop: EngineLoop, context: Context, owner: str, priority: int = 0) -> None:
        super().__init__(loop, context)
        self._owner = owner
        self._priority = priority
        self._count = 0

    def begin(self) -> Pass | None:
        assert self.context is not None
        tokens = list(self.context.buffered[:-1])
        self._count = len(tokens)
        return Pass(self._owner, self.context, tokens, priority=self._priority) if tokens else None

    def settle(self, outcome: Outcome) -> None:
        if outcome.error is None and self.context is not None:
            del self.context.buffered[: self._count]

    def proceed(self, outcome: Outcome) -> Pass | None:
        return None


class ForwardJob(FutureJob):
    """One pass over given tokens. Tokens that are the head of the buffer are taken from it, others extend the KV.

    *build* makes the pass when the job's turn comes, with the lock held.
    """

    def __init__(
        self,
        loop: EngineLoop,
        request: ForwardRequest,
        context: Context | None,
        build: Callable[[], Pass],
        deadline: float | None,
    ) -> None:
        super().__init__(loop, context, deadline)
        self.asks_again = context is not None and bool(request.samplers)
        self._request = request
        self._build = build
        self._buffered = False

    def begin(self) -> Pass | None:
        self.check_time()
        tokens = self._request.tokens
        self._buffered = self.context is not None and tuple(self.context.buffered[: len(tokens)]) == tokens
        return self._build()

    def settle(self, outcome: Outcome) -> None:
        if outcome.error is not None or self.context is None:
            return
        tokens = self._request.tokens
        if self._buffered:
            del self.context.buffered[: len(tokens)]
        extra = (() if self._buffered else tokens) + outcome.accepted[:-1]
        self.context.transcript = self.context.transcript.wrote(extra)

    def proceed(self, outcome: Outcome) -> Pass | None:
        results = [*outcome.results, *outcome.accepted_results[1:]]  # the first of these is among those
        drafts, positions = self._own_drafts(outcome)
        self._value = ForwardOutput(
            results=tuple(result.value for result in outcome.results),
            accepted=outcome.accepted,
            next_drafts=drafts,
            next_positions=positions,
            logprobs=tuple(result.logprobs for result in results if result.logprobs is not None),
        )
        return None

    def _own_drafts(self, outcome: Outcome) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the engine proposes after a verification: what followed the last time the context ended like this."""
        if not (self._request.speculative_output and outcome.accepted) or self.context is None:
            return (), ()
        tokens = NGrams(PromptLookup(), [*self.context.tokens, outcome.accepted[-1]])
        drafts = tokens.propose(len(self._request.draft_tokens))
        first = (self.context.last_position or 0) + 2
        return drafts, tuple(range(first, first + len(drafts)))
