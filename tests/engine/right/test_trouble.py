"""A real model under trouble: a pool that is too small, cancels at any moment, sessions that end, forks on the way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, Cancelled, EngineError, LimitExceeded, NotFound, OutOfPages
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, ForwardRequest, GenerateRequest, GrammarSpec, PromptLookup, SampleAt
from bakehouse.engine.session import Session
from tests.engine.right.support import (
    NEVER,
    WAIT_S,
    Open,
    assert_greedy,
    distributions,
    filled,
    some_tokens,
    start,
    tokens_of,
)
from tests.engine.right.test_masks import close, reference
from tests.engine.session.support import settled

EagerOf = Callable[[str], Any]
#: Pages for some three of the sequences below.
TIGHT = {"kv_tokens": 512}


@pytest.mark.parametrize("draft", [None, PromptLookup(4, longest=1)])
def test_preemption_changes_nothing(draft: PromptLookup | None, open_: Open, serve: Any, eager: EagerOf) -> None:
    """Twelve generations of 150 tokens in a pool for three."""
    session, served = open_("qwen3", **TIGHT), serve("qwen3", **TIGHT)
    before = served.loop.stats()["preemptions"]
    prompts = [some_tokens(20 + 5 * number, seed=number) for number in range(12)]
    streams = [start(session, filled(session, prompt), max_tokens=90, draft=draft) for prompt in prompts]
    for prompt, stream in zip(prompts, streams, strict=True):
        tokens = tokens_of(stream)
        assert len(tokens) == 90
        assert_greedy(eager("qwen3"), prompt, tokens)
    assert served.loop.stats()["preemptions"] > before


def test_pages_that_were_put_aside_come_back_with_their_masks_and_positions(open_: Open, eager: EagerOf) -> None:
    """A windowed context, one with gaps and one with both ways of seeing, while others take all pages."""
    session = open_("llama", **TIGHT)
    tokens = some_tokens(60, seed=50)
    windowed = [brle.sliding(row, 11, 2) for row in range(60)]
    gaps = [row + 5 * (row // 8) for row in range(60)]
    first, second = session.create_context(), session.create_context()
    distributions(session, tokens[:45], context=first, masks=tuple(windowed[:45]))
    distributions(session, tokens[:45], context=second, positions=tuple(gaps[:45]))
    for number in range(3):  # each takes nearly all of the pool
        big = filled(session, some_tokens(440, seed=60 + number))
        tokens_of(start(session, big, max_tokens=20))
        session.release_context(big)
    ours = distributions(session, tokens[45:], context=first, masks=tuple(windowed[45:]))
    close(ours, reference(eager("llama"), tokens, windowed)[45:])
    ours = distributions(session, tokens[45:], context=second, positions=tuple(gaps[45:]))
    close(ours, reference(eager("llama"), tokens, [brle.causal(at) for at in gaps], gaps)[45:])


def test_what_cannot_be_computed_again_is_not_put_aside(open_: Open) -> None:
    """Pinned contexts fill the pool: each owner leaves some of it to others, who get an error when nothing is left.
    Once the contexts are gone it goes on."""
    sessions = {owner: open_("llama", owner=owner, **TIGHT) for owner in ("ada", "bob", "cyd")}
    both = tuple((0, 32) for _ in range(32))

    def pin(session: Session, number: int) -> None:
        tokens = tuple(some_tokens(32, seed=number))
        session.forward(ForwardRequest(context=session.create_context(), tokens=tokens, masks=both)).result(WAIT_S)

    for owner, contexts in (("ada", 12), ("bob", 3)):  # two pages each, of 32
        for number in range(contexts):
            pin(sessions[owner], number)
        with pytest.raises(LimitExceeded, match=r"cannot be put aside"):
            pin(sessions[owner], contexts)
    other = sessions["cyd"]
    with pytest.raises(OutOfPages):
        tokens_of(start(other, filled(other, some_tokens(20)), max_tokens=40))
    sessions["ada"].close()
    assert len(tokens_of(start(other, filled(other, some_tokens(20)), max_tokens=40))) == 40


@pytest.mark.parametrize("moment", range(6))
def test_a_closed_session_leaves_nothing(moment: int, serve: Any) -> None:
    served = serve("llama", **TIGHT)
    session = Session(served, "ada")
    streams = [start(session, filled(session, some_tokens(30, seed=n)), max_tokens=200) for n in range(6)]
    waiting = [session.flush(filled(session, some_tokens(90, seed=n), 90)) for n in range(3)]
    grammar = GrammarSpec("json")
    context = filled(session, some_tokens(5))
    streams.append(session.generate(GenerateRequest(context=context, grammar=grammar, max_tokens=200)))
    for _ in range(moment):
        next(streams[0])
    session.close()
    for stream in streams:
        with pytest.raises(Cancelled):
            tokens_of(stream)
    for future in waiting:
        with_error(future)
    with pytest.raises(NotFound):
        session.create_context()
    settled(served)


def with_error(future: Any) -> EngineError | None:
    """Its error or None; it ends in any case."""
    error = future.exception(WAIT_S)
    assert error is None or isinstance(error, EngineError)
    return error


def test_one_context_and_many_calls_from_many_threads(open_: Open) -> None:
    """Only the engine's errors, no call that hangs, and afterwards one order that explains what is there."""
    session = open_("llama")
    context = filled(session, some_tokens(10))
    together = threading.Barrier(8)
    refusals: list[int] = []

    def hammer(number: int) -> int:
        dice = random.Random(number)
        together.wait(10)
        done = 0
        for _ in range(15):
            try:
                kind = dice.randrange(6)
                if kind == 0:
                    session.append_tokens(context, [number])
                elif kind == 1:
                    session.flush(context).result(WAIT_S)
                elif kind == 2:
                    session.release_context(session.fork_context(context))
                elif kind == 3:
                    stream = start(session, context, max_tokens=dice.randint(1, 9))
                    next(stream)
                    stream.close()
                elif kind == 4:
                    at = (SampleAt((0,), GREEDY),)
                    request = ForwardRequest(context=context, tokens=(number,), samplers=at)
                    session.forward(request).result(WAIT_S)
                else:
                    session.set_cursor(context, session.context_state(context).cursor)
                done += 1
            except (BadRequest, Cancelled):
                refusals.append(number)
        return done

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(hammer, range(8))) + len(refusals) == 8 * 15
    assert 0 < len(refusals) < 100
    session.set_buffer(context, [5])
    after = session.fork_context(context)
    assert tokens_of(start(session, context, max_tokens=6)) == tokens_of(start(session, after, max_tokens=6))


@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(1000, 1400), marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_programs_of_chance_are_what_transformers_says(seeds: range, open_: Open, eager: EagerOf) -> None:
    for seed in seeds:
        of_chance(seed, open_("qwen3", owner=f"owner-{seed}", **TIGHT), eager)


def of_chance(seed: int, session: Session, eager: EagerOf) -> None:
    """Contexts of known tokens through forks, generations cut short, cancels and releases, in a pool that is too small.

    A context is modelled by its list of tokens alone: all that it may depend on.
    """
    dice = random.Random(seed)
    held: dict[int, list[int]] = {}
    for step in range(45):
        kind = dice.choice(["new", "fork", "run", "cut", "append", "flush", "release", "pass", "cancel"])
        if kind == "new" or not held:
            tokens = some_tokens(dice.choice([1, 2, 15, 16, 17, 40]), seed=dice.randrange(4))
            held[filled(session, tokens, dice.randint(1, len(tokens)))] = tokens
            continue
        context = dice.choice(list(held))
        known = held[context]
        if len(known) > 300 or kind == "release":
            session.release_context(context)
            del held[context]
        elif kind == "fork":
            held[session.fork_context(context)] = list(known)
        elif kind == "append":
            more = some_tokens(dice.randint(1, 20), seed=step)
            session.append_tokens(context, more)
            known += more
        elif kind == "flush":
            session.flush(context).result(WAIT_S)
            assert session.context_state(context).buffered == (known[-1],)
        elif kind == "pass":
            buffered = session.context_state(context).buffered
            head = buffered[: dice.randint(1, len(buffered))]
            session.forward(ForwardRequest(context=context, tokens=head)).result(WAIT_S)
            if head == buffered:  # a generation needs one that is buffered
                session.append_tokens(context, [7])
                known.append(7)
        elif kind == "run":
            got = tokens_of(start(session, context, max_tokens=dice.randint(1, 20)))
            assert_greedy(eager("qwen3"), known, got)
            known += got
        else:
            draft = dice.choice([None, PromptLookup(4, longest=2)])
            stream = start(session, context, max_tokens=40, draft=draft)
            got = []
            while len(got) < (dice.randint(0, 12) if kind == "cut" else 0):
                got += next(stream).tokens
            if kind == "cut" and dice.random() < 0.5:
                held[session.fork_context(context)] = known + got
            stream.close()
            assert_greedy(eager("qwen3"), known, got)
            known += got
        state = session.context_state(context) if context in held else None
        if state is not None:
            ran = state.committed_pages * 16 + state.cursor
            assert (*known[:ran], *state.buffered) == tuple(known)
    for context, known in held.items():
        assert_greedy(eager("qwen3"), known, tokens_of(start(session, context, max_tokens=5)))
    session.close()


def test_two_owners_see_nothing_of_each_other(serve: Any) -> None:
    served: ServedModel = serve("llama")
    with Session(served, "ada") as ada, Session(served, "bob") as bob:
        mine = ada.create_context("story")
        ada.append_tokens(mine, [1, 2, 3])
        theirs = bob.create_context("story")
        assert bob.context_state(theirs).buffered == ()
        for call in (bob.context_state, bob.fork_context, bob.release_context, bob.flush):
            with pytest.raises(NotFound):
                call(mine)
        assert ada.context_state(mine).buffered == (1, 2, 3)
        with pytest.raises(NotFound):
            bob.generate(GenerateRequest(context=mine, stop=NEVER))
