"""A generation as a job, and the stream of chunks that its reader holds."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from bakehouse.engine.courier import Job, Notifier
from bakehouse.engine.errors import BadRequest, Cancelled, DeadlineExceeded, EngineError, StepFailed
from bakehouse.engine.generate import Generation, Piece
from bakehouse.engine.loop import EngineLoop
from bakehouse.engine.params import Chunk, FinishReason
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass

log = logging.getLogger(__name__)


class Bell(Notifier, Protocol):
    """A notifier that collects who is to be woken."""

    def ring(self, wake: Callable[[], None]) -> None:
        """Have *wake* called at the next flush. Thread-safe, does not block."""


class GenerateJob(Job):
    """A generation, and the stream that its reader holds."""

    goes_on = True
    asks_again = True
    branches = True

    def __init__(self, generation: Generation, context: Context, loop: EngineLoop, deadline: float | None) -> None:
        self.context: Context = context
        self.generation = generation
        self.stream = Stream(self, loop)
        self._loop = loop
        self._deadline = deadline
        self._drafted = False
        self._tokens = 0
        self._ready: deque[Piece | EngineError] = deque()

    def begin(self) -> Pass | None:
        if self._deadline is not None and self._loop.clock() >= self._deadline:
            raise DeadlineExceeded("its time was over before it could run")
        if self.generation.request.max_tokens == 0:
            self._ready.append(Piece([], b"", FinishReason.LENGTH))
            return None
        return self._sent(self.generation.first())

    def _sent(self, pass_: Pass) -> Pass:
        self._tokens, self._drafted = len(pass_.tokens), bool(pass_.drafts)
        return pass_

    def settle(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            return
        newest = outcome.accepted[-1] if self._drafted else outcome.results[0].value
        assert isinstance(newest, int)
        self.context.buffered[: self._tokens] = [newest]

    def proceed(self, outcome: Outcome) -> Pass | None:
        self._ready.append(self.generation.advance(outcome, self._drafted))
        return None if self.generation.finish else self._sent(self.generation.following())

    def end(self, error: EngineError | None) -> None:
        if error is not None:
            self._ready.append(error)
        if self.stream.closed:
            self.generation.trim(self.stream.taken)
        else:
            self.generation.trim(self.generation.kept)

    def deliver(self) -> Notifier | None:
        notifier = None
        while self._ready:
            item = self._ready.popleft()
            try:
                chunk = item if isinstance(item, EngineError) else self.generation.chunk(item)
            except Exception as error:  # Of a decoder: it ends this generation, and no other.
                log.exception("a decoder failed")
                self._ready.clear()
                self._loop.cancel(self)
                chunk = StepFailed(f"decoding failed: {type(error).__name__}: {error}")
            if chunk is not None:
                notifier = self.stream.put(chunk)
        return notifier


class Stream:
    """The chunks of one generation, for one reader. Iterating blocks until the next one is there.

    While it is **open**, its context can be forked, looked at and released, nothing else. It closes when the last
    chunk, or the error, was taken, or by `close`. The generation may run ahead of its reader; closed early, its context
    is cut back to what the reader took, so that what a program sees does not depend on how fast it reads.

    With a **distant** reader, on the far side of a socket, taking a chunk here only sends it on: the reader says by
    `report`, `close` and `read_out` what it took, and only these two or an error close the stream.
    """

    def __init__(self, job: GenerateJob, loop: EngineLoop) -> None:
        #: Tokens in the chunks that the reader took, and in those that left here.
        self.taken = 0
        self.sent = 0
        self.distant = False
        self.closed = False
        #: Whether nothing more can be taken: the last chunk was.
        self.ended = False
        #: Whether the last chunk, or the error, is there to be taken, or was.
        self.complete = False
        self.job = job
        self._loop = loop
        self._bell: Bell | None = None
        self._wake: Callable[[], None] = lambda: None
        self._queue: queue.SimpleQueue[Chunk | EngineError] = queue.SimpleQueue()
        self._after: list[Callable[[Stream], None]] = []
        self._guard = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether the next chunk, or the end, can be had without waiting. Takes nothing."""
        return self.ended or not self._queue.empty()

    def put(self, item: Chunk | EngineError) -> Notifier | None:
        self._queue.put(item)
        if isinstance(item, EngineError) or item.finish is not None:
            self.complete = True
        if self._bell is not None:
            self._bell.ring(self._wake)
        return self._bell

    def listen(self, bell: Bell, wake: Callable[[], None]) -> None:
        """From now on *wake* is rung at *bell* for each new chunk; those before it are found by `poll`."""
        self._wake, self._bell = wake, bell

    def when_closed(self, function: Callable[[Stream], None]) -> None:
        """Call *function* once, with the lock held, when the stream closes."""
        self._after.append(function)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self.ended:
            raise StopIteration
        return self._took(self._queue.get())

    def poll(self) -> Chunk | None:
        """The next chunk if it is there. Never blocks; raises what ended the generation badly."""
        try:
            return self._took(self._queue.get_nowait())
        except queue.Empty:
            return None

    def _took(self, item: Chunk | EngineError) -> Chunk:
        if isinstance(item, EngineError) or item.finish is not None:
            with self._loop.lock:
                return self._count(item, last=True)
        return self._count(item, last=False)

    def _count(self, item: Chunk | EngineError, last: bool) -> Chunk:
        with self._guard:
            if self.closed:
                self.ended = True
                raise Cancelled("the stream was closed")
            self.ended = last
            if isinstance(item, Chunk):
                self.sent += len(item.tokens)
                if not self.distant:
                    self.taken = self.sent
        if last and not (self.distant and isinstance(item, Chunk)):
            self._close()
        if isinstance(item, EngineError):
            raise item
        return item

    def close(self, taken: int | None = None) -> None:
        """End the generation; nothing happens when it is closed. The context is cut back to the first *taken* tokens.

        A distant reader says how many it took; without *taken* it is what was taken here, or last reported.
        """
        with self._loop.lock:
            if self.closed:
                return
            self._close(taken)
            if self.job.ended:
                self.job.generation.trim(self.taken)
            else:
                self._loop.cancel(self.job)
        self._queue.put(Cancelled("the stream was closed"))
        self.complete = True

    def report(self, taken: int) -> None:
        """A distant reader has taken *taken* tokens by now. Raises `BadRequest` for more than were sent, or fewer."""
        with self._guard:
            self._check_taken(taken)
            self.taken = taken

    def read_out(self) -> None:
        """A distant reader has taken the last chunk. Raises `BadRequest` when that was not sent yet."""
        with self._loop.lock:
            if self.closed:
                return
            if not self.ended:
                raise BadRequest.at("taken", "the last chunk was not sent yet")
            self._close(self.sent)

    def _check_taken(self, taken: int) -> None:
        least = self.taken if self.distant else 0
        if not least <= taken <= self.sent:
            raise BadRequest.at("taken", f"must lie between {least} and {self.sent}, not {taken}")

    def _close(self, taken: int | None = None) -> None:
        """Lock held."""
        with self._guard:
            if taken is not None:
                self._check_taken(taken)
                self.taken = taken
            self.closed = True
        after, self._after = self._after, []
        for function in after:
            function(self)

    def cut_fork(self, child: Context) -> None:
        """Make *child*, just forked from the stream's context, what the context would be if the stream closed now."""
        self.job.generation.trim(self.taken, child)
