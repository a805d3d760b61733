"""What all calls of a session stand on: what it holds, its limits, and the checks of ids and values."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from bakehouse.engine import brle
from bakehouse.engine.adapters.table import AdapterTable
from bakehouse.engine.brle import Brle
from bakehouse.engine.courier import Job
from bakehouse.engine.decoding import EventDecoder
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import Decode, ModelInfo
from bakehouse.engine.plan.contexts import Context

#: Characters of a context's name.
MAX_NAME = 1024


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold at one time."""

    contexts: int = 1024
    matchers: int = 1024
    decoders: int = 1024
    jobs: int = 4096
    #: KV pages, a page counting for each context that has it; None: as many as there are.
    pages: int | None = None


@dataclass(slots=True)
class Held:
    """A matcher of the caller's; ``lent`` to a generation it cannot be used."""

    matcher: Matcher
    lent: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)


class SessionBase:
    """See `session.Session`."""

    def __init__(self, served: ServedModel, owner: str, program: str = "", limits: SessionLimits | None = None) -> None:
        self.model: ModelInfo = served.info
        self.owner = owner
        self.program = f"{program or 'session'}-{secrets.token_hex(8)}"
        self.limits = limits or SessionLimits()
        self._served = served
        self._loop = served.loop
        self._planner = served.planner
        self._contexts: dict[int, Context] = {}
        self._matchers: dict[int, Held] = {}
        self._decoders: dict[int, EventDecoder] = {}
        self._tool_ids = itertools.count(1)
        self._buffered = 0
        self._jobs: set[Job] = set()
        self._sweep_at = 64
        self._closed = False
        if self.limits.pages is not None:
            with self._loop.lock:
                self._planner.contexts.charges.allow(self.program, self.limits.pages)

    def _adapters(self) -> AdapterTable:
        self._check_open()
        if self._served.adapters is None:
            raise BadRequest.at("adapter", f"model {self.model.name} takes no adapters")
        return self._served.adapters

    def _slot(self, adapter: int | None) -> int | None:
        return None if adapter is None else self._adapters().get(adapter).slot

    def _check_adapter(self, adapter: int | None, zo_seed: int) -> None:
        self._slot(adapter)
        if zo_seed and adapter is not None:
            self._adapters().require_zo(adapter)

    def _weights(self, adapter: int | None) -> int:
        return 0 if adapter is None else self._adapters().generation(adapter)

    # Checks; those of contexts with the lock held

    def _check_open(self) -> None:
        if self._closed:
            raise NotFound("the session is closed")

    def _check_room(self) -> None:
        self._check_open()
        if len(self._contexts) >= self.limits.contexts:
            raise LimitExceeded(f"a session has at most {self.limits.contexts} contexts; release some")

    def _check_buffer(self, more: int) -> None:
        """Raises `LimitExceeded` where *more* buffered tokens would need more pages than the program may have.

        Counted up here, and anew when that is over the limit: tokens also leave buffers without a call.
        """
        if self.limits.pages is None:
            return
        most = self.limits.pages * self.model.page_size
        self._buffered += more
        if self._buffered <= most:
            return
        self._buffered = sum(len(context.buffered) for context in self._contexts.values())
        if self._buffered + more > most:
            raise LimitExceeded(
                f"pages: {self._buffered} tokens wait in the contexts of this program and {more} more came;"
                f" {self.limits.pages} KV pages of {self.model.page_size} tokens may be had",
                field="pages",
            )
        self._buffered += more

    def _keep(self, context: Context) -> int:
        self._contexts[context.id] = context
        return context.id

    def _context(self, context: int) -> Context:
        self._check_open()
        found = self._contexts.get(_identity("context", context))
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
        found.transcript = found.transcript.cut()
        return found

    def _matcher(self, matcher: int) -> Held:
        """A matcher that no generation has."""
        self._check_open()
        held = self._matchers.get(_identity("matcher", matcher))
        if held is None:
            raise NotFound(f"there is no matcher {matcher}", field="matcher")
        if held.lent:
            raise BadRequest.at("matcher", f"matcher {matcher} is in use by a generation; read its stream to the end")
        return held

    def _decoder(self, decoder: int) -> EventDecoder:
        self._check_open()
        try:
            return self._decoders[decoder]
        except KeyError:
            raise NotFound(f"there is no decoder {decoder}", field="decoder") from None

    def _decoder_for(self, decode: Decode) -> EventDecoder:
        decoder = self._served.chat.decoder(reasoning=decode.reasoning, tool_use=decode.tool_use)
        return EventDecoder(decoder, decode.text)

    def _check_tokens(self, field: str, tokens: Iterable[int]) -> list[int]:
        """*tokens*, which may be any iterable, once they were looked at."""
        if not isinstance(tokens, Iterable):
            raise BadRequest.at(field, f"must be a sequence of ids, not {tokens!r}")
        size, checked = self.model.vocab_size, list(tokens)
        for token in checked:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < size:
                raise BadRequest.at(field, f"{token!r} is no id of a vocabulary of {size}")
        return checked

    def _mask(self, mask: Brle | bytes | None) -> bytes | None:
        """Packed; None where all is allowed. An empty list restricts nothing."""
        if not mask:
            return None
        bits = mask if isinstance(mask, bytes) else brle.to_bits(mask, self.model.vocab_size)
        size = -(-self.model.vocab_size // 32) * 4
        if len(bits) != size:
            raise BadRequest.at("logit_mask", f"packed it has {size} bytes for this model, not {len(bits)}")
        if not any(bits):
            raise BadRequest.at("logit_mask", "allows no id")
        return bits

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._loop.clock() + timeout

    # Jobs

    def _submit(self, job: Job) -> None:
        if len(self._jobs) >= min(self._sweep_at, self.limits.jobs):
            self._jobs = {running for running in self._jobs if not running.ended}
            self._sweep_at = max(64, 2 * len(self._jobs))
        if len(self._jobs) >= self.limits.jobs:
            raise LimitExceeded(f"a session runs at most {self.limits.jobs} passes and generations at one time")
        self._loop.submit(job)
        self._jobs.add(job)

    def _cancel_all(self, jobs: Iterable[Job]) -> None:
        for job in list(jobs):
            self._loop.cancel(job)


def check_text(field: str, value: object) -> str:
    """Raises `BadRequest` for what is no text."""
    if not isinstance(value, str):
        raise BadRequest.at(field, f"must be text, not {value!r}")
    return value


def check_name(value: object) -> str | None:
    """The name of a context, or None for none. Raises `BadRequest`."""
    if value is None:
        return None
    name = check_text("name", value)
    if not 0 < len(name) <= MAX_NAME:
        raise BadRequest.at("name", f"must have 1 to {MAX_NAME} characters")
    return name


def check_count(field: str, value: object) -> int:
    """Raises `BadRequest` for what is no integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest.at(field, f"must be an integer, not {value!r}")
    return value


def _identity(field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest.at(field, f"must be an id, which is an integer, not {value!r}")
    return value
