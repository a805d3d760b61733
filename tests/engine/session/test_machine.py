"""Random operations on contexts of one session against a model that keeps plain lists of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, ForwardRequest, GenerateRequest, PromptLookup, SampleAt, Stop
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine.session.support import generate, read, settled

NEVER = Stop(tokens=())
TOKENS = st.lists(st.integers(97, 99), min_size=1, max_size=30)

#: 15 pages, and the longest sequence has 14: contexts are put aside and pages evicted all the time.
TIGHT = ModelSpec(
    name="tight", source="dummy", seed=5, kv_tokens=15 * 8, page_size=8, max_step_tokens=48, prefill_chunk=24
)
ROOMY = ModelSpec(name="roomy", source="dummy", seed=5, page_size=8)


@cache
def served(spec: ModelSpec) -> ServedModel:
    return ServedModel.load(spec)


@cache
def oracle(tokens: tuple[int, ...], count: int) -> list[int]:
    """What comes after *tokens*: from a context of its own, in an engine with nothing cached."""
    model = served(ROOMY)
    model.planner.pages.forget_cached()
    with Session(model, "oracle") as session:
        context = session.create_context()
        session.append_tokens(context, tokens)
        return generate(session, context, sampler=GREEDY, max_tokens=count, stop=NEVER)


class Naive:
    """All tokens in order; the last ``buffered`` of them have no KV."""

    def __init__(self, tokens: list[int], buffered: int) -> None:
        self.tokens = tokens
        self.buffered = buffered


class Contexts(RuleBasedStateMachine):
    contexts: Bundle[tuple[int, Naive]] = Bundle("contexts")

    @initialize(target=contexts, lengths=st.lists(st.integers(30, 60), min_size=2, max_size=4))
    def begin(self, lengths: list[int]) -> Any:
        """Contexts that do not fit into the pool together."""
        self.session = Session(served(TIGHT), "ada")
        self.alive: dict[int, Naive] = {}
        made = []
        for number, length in enumerate(lengths):
            made.append(self.create([97 + (number * index) % 26 for index in range(length)]))
            self.flush(made[-1])
        return multiple(*made)

    def keep(self, context: int, naive: Naive) -> tuple[int, Naive]:
        self.alive[context] = naive
        return context, naive

    @rule(target=contexts, tokens=TOKENS)
    def create(self, tokens: list[int]) -> tuple[int, Naive]:
        context = self.session.create_context()
        self.session.append_tokens(context, tokens)
        return self.keep(context, Naive(list(tokens), len(tokens)))

    @precondition(lambda self: len(self.alive) < 6)
    @rule(target=contexts, of=contexts)
    def fork(self, of: tuple[int, Naive]) -> tuple[int, Naive]:
        context, naive = of
        return self.keep(self.session.fork_context(context), Naive(list(naive.tokens), naive.buffered))

    @rule(of=consumes(contexts))
    def release(self, of: tuple[int, Naive]) -> None:
        self.session.release_context(of[0])
        del self.alive[of[0]]

    @rule(of=contexts, tokens=TOKENS)
    def append(self, of: tuple[int, Naive], tokens: list[int]) -> None:
        context, naive = of
        if len(naive.tokens) < 60:
            self.session.append_tokens(context, tokens)
            naive.tokens += tokens
            naive.buffered += len(tokens)

    @rule(of=contexts)
    def flush(self, of: tuple[int, Naive]) -> None:
        self.session.flush(of[0]).result(20)
        of[1].buffered = min(of[1].buffered, 1)

    @rule(of=contexts, count=st.integers(1, 12), ahead=st.integers(0, 12), draft=st.booleans(), data=st.data())
    def generate(self, of: tuple[int, Naive], count: int, ahead: int, draft: bool, data: Any) -> None:
        """Read *count* tokens of a generation of *count* + *ahead*, with a fork in the middle now and then."""
        context, naive = of
        if not naive.buffered or len(naive.tokens) > 80:
            return
        lookup = PromptLookup(tokens=5, longest=2) if draft else None
        stream = self.session.generate(
            GenerateRequest(context=context, sampler=GREEDY, max_tokens=count + ahead, stop=NEVER, draft=lookup)
        )
        got = read(stream, count)
        expected = oracle(tuple(naive.tokens), count + ahead)
        assert got == expected[: len(got)]
        if data.draw(st.booleans(), label="fork"):
            child = self.session.fork_context(context)
            assert self.session.context_state(child).buffered == (got[-1],)
            self.session.release_context(child)
        stream.close()
        naive.tokens += got
        naive.buffered = 1

    @rule(of=contexts, draft=st.lists(st.integers(97, 99), max_size=3), right=st.integers(0, 3))
    def forward(self, of: tuple[int, Naive], draft: list[int], right: int) -> None:
        """The whole buffer, and drafts of which the first *right* are what will be sampled."""
        context, naive = of
        if not naive.buffered or len(naive.tokens) > 80:
            return
        tokens = tuple(naive.tokens[-naive.buffered :])
        expected = oracle(tuple(naive.tokens), right + 1)
        drafts = (*expected[:right], *draft)
        request = ForwardRequest(
            context=context, tokens=tokens, samplers=(SampleAt((len(tokens) - 1,), GREEDY),), draft_tokens=drafts
        )
        output = self.session.forward(request).result(20)
        if drafts:
            accepted = list(output.accepted)
            assert accepted[: right + 1] == expected
            assert accepted == oracle(tuple(naive.tokens), len(accepted))
            naive.tokens += accepted[:-1]
        else:
            assert list(output.results) == expected[:1]
        naive.buffered = 0

    @rule(of=contexts, cut=st.integers(0, 7))
    def cut(self, of: tuple[int, Naive], cut: int) -> None:
        context, naive = of
        cursor = self.session.context_state(context).cursor
        cut = min(cut, cursor)
        if naive.buffered == 0 and cut:
            self.session.set_cursor(context, cursor - cut)
            del naive.tokens[len(naive.tokens) - cut :]

    @invariant()
    def states_agree(self) -> None:
        for context, naive in getattr(self, "alive", {}).items():
            state = self.session.context_state(context)
            filled = len(naive.tokens) - naive.buffered
            assert state.committed_pages * state.page_size + state.cursor == filled
            assert state.buffered == tuple(naive.tokens[filled:])
            assert state.last_position == (filled - 1 if filled else None)
        with served(TIGHT).loop.lock:
            served(TIGHT).planner.check_integrity()

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            settled(served(TIGHT))


@pytest.fixture(scope="module", autouse=True)
def engines() -> Iterator[None]:
    yield
    assert served(TIGHT).planner.preemptions > 0
    for spec in (TIGHT, ROOMY):
        served(spec).close()


TestContexts = Contexts.TestCase
TestContexts.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
