"""Calls of a session on matchers, which follow a grammar, and decoders, which turn ids into events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from bakehouse.engine import brle
from bakehouse.engine.brle import Brle
from bakehouse.engine.errors import LimitExceeded
from bakehouse.engine.grammar.base import Matcher
from bakehouse.engine.params import Decode, Event, GrammarSpec
from bakehouse.engine.session_base import Held, SessionBase


class MatcherCalls(SessionBase):
    """See `session.Session`."""

    def compile(self, grammar: GrammarSpec) -> Future[Matcher]:
        """Compile on a worker thread, into the cache."""
        return self._loop.run_aside(self.owner, lambda: self._served.grammars.matcher(grammar, self.owner))

    def create_matcher(self, grammar: GrammarSpec) -> Future[int]:
        """Compiles on a worker thread."""
        return self._keep_matcher(lambda: self._served.grammars.matcher(grammar, self.owner))

    def create_tool_matcher(self, tools: Sequence[str]) -> Future[int]:
        """Of one call of one of *tools*, JSON texts, as the model's chat format writes it."""
        family = self._served.chat.family
        return self._keep_matcher(lambda: self._served.grammars.tool_matcher(family, tools, self.owner))

    def _keep_matcher(self, make: Callable[[], Matcher]) -> Future[int]:
        with self._loop.lock:
            self._check_open()
            if len(self._matchers) >= self.limits.matchers:
                raise LimitExceeded(f"a session has at most {self.limits.matchers} matchers; release some")

        def compile_() -> int:
            matcher = make()
            with self._loop.lock:
                self._check_open()
                identity = next(self._tool_ids)
                self._matchers[identity] = Held(matcher)
            return identity

        return self._loop.run_aside(self.owner, compile_)

    def matcher_mask(self, matcher: int) -> Brle:
        return brle.from_bits(self.matcher_bits(matcher), self.model.vocab_size)

    def matcher_bits(self, matcher: int) -> bytes:
        """`matcher_mask`, packed: a request takes it as it is."""
        held = self._matcher(matcher)
        with held.guard:
            return held.matcher.mask()

    def matcher_accept(self, matcher: int, tokens: Sequence[int]) -> None:
        self._check_tokens("tokens", tokens)
        held = self._matcher(matcher)
        with held.guard:
            held.matcher.accept(tokens)

    def matcher_terminated(self, matcher: int) -> bool:
        return self._matcher(matcher).matcher.terminated

    def matcher_reset(self, matcher: int) -> None:
        held = self._matcher(matcher)
        with held.guard:
            held.matcher.reset()

    def release_matcher(self, matcher: int) -> None:
        with self._loop.lock:
            self._matcher(matcher)
            del self._matchers[matcher]

    # Decoders

    def create_decoder(self, decode: Decode) -> int:
        with self._loop.lock:
            self._check_open()
            if len(self._decoders) >= self.limits.decoders:
                raise LimitExceeded(f"a session has at most {self.limits.decoders} decoders; release some")
            identity = next(self._tool_ids)
            self._decoders[identity] = self._decoder_for(decode)
            return identity

    def decoder_feed(self, decoder: int, tokens: Sequence[int]) -> list[Event]:
        """The events that *tokens* complete."""
        self._check_tokens("tokens", tokens)
        found = self._decoder(decoder)
        # Not the loop's lock: a long text takes a second, and nobody's tokens would come meanwhile.
        with found.guard:
            return found.feed(tokens)

    def decoder_finish(self, decoder: int) -> list[Event]:
        """What was held back, and the end; the decoder is then at its start again."""
        found = self._decoder(decoder)
        with found.guard:
            events = found.finish()
            found.reset()
            return events

    def decoder_reset(self, decoder: int) -> None:
        found = self._decoder(decoder)
        with found.guard:
            found.reset()

    def release_decoder(self, decoder: int) -> None:
        with self._loop.lock:
            self._decoder(decoder)
            del self._decoders[decoder]
