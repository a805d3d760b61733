"""Contexts through a session: forks, names, buffers, pages, and who may touch what."""

from __future__ import annotations

import time

import pytest

from bakehouse.engine.errors import BadRequest, Cancelled, LimitExceeded, NameTaken, NotFound
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, ForwardRequest, GenerateRequest, SampleAt, Stop
from bakehouse.engine.session import Session, SessionLimits
from tests.engine.session.support import Programs, generate, read, text_context

NEVER = Stop(tokens=())
PAGE = 16


@pytest.fixture
def session(programs: Programs) -> Session:
    return programs()


def tokens(count: int) -> list[int]:
    return [97 + (index * 7) % 26 for index in range(count)]


def context_of(session: Session, filled: int, buffered: int) -> int:
    """*filled* tokens with KV and *buffered* without."""
    context = session.create_context()
    whole = tokens(filled + buffered)
    if filled:
        session.append_tokens(context, [*whole[:filled], 1])
        session.flush(context).result(20)
        session.set_buffer(context, [])
    session.append_tokens(context, whole[filled:])
    return context


@pytest.mark.parametrize("buffered", [1, 5])
@pytest.mark.parametrize("filled", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE - 1, 3 * PAGE, 3 * PAGE + 1])
def test_forks_equal_a_fresh_context(session, filled, buffered):
    fresh = session.create_context()
    session.append_tokens(fresh, tokens(filled + buffered))
    expected = generate(session, fresh, sampler=GREEDY, max_tokens=24, stop=NEVER)
    parent = context_of(session, filled, buffered)
    child = session.fork_context(parent)
    grandchild = session.fork_context(child)
    state, other = session.context_state(parent), session.context_state(child)
    assert (state.cursor, state.buffered, state.last_position) == (other.cursor, other.buffered, other.last_position)
    for context in (child, parent, grandchild):
        assert generate(session, context, sampler=GREEDY, max_tokens=24, stop=NEVER) == expected


def test_a_fork_goes_its_own_way(session):
    parent = context_of(session, 20, 3)
    child = session.fork_context(parent)
    session.append_tokens(child, [65, 66])
    assert session.context_state(parent).buffered == tuple(tokens(23)[20:])
    one = generate(session, child, sampler=GREEDY, max_tokens=8, stop=NEVER)
    session.release_context(child)
    fresh = session.create_context()
    session.append_tokens(fresh, [*tokens(23), 65, 66])
    assert generate(session, fresh, sampler=GREEDY, max_tokens=8, stop=NEVER) == one


def test_flush_keeps_the_last_token(session):
    context = session.create_context()
    session.flush(context).result(20)
    session.append_tokens(context, tokens(1))
    session.flush(context).result(20)
    assert session.context_state(context).last_position is None
    session.append_tokens(context, tokens(40)[1:])
    session.flush(context).result(20)
    state = session.context_state(context)
    assert (state.committed_pages, state.cursor, state.buffered) == (2, 7, (tokens(40)[39],))


def test_calls_take_effect_in_their_order_without_waiting(session):
    context = session.create_context()
    session.append_tokens(context, tokens(30))
    first = session.flush(context)
    session.append_tokens(context, tokens(50)[30:])
    second = session.flush(context)
    stream = session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=8, stop=NEVER))
    got = [token for chunk in stream for token in chunk.tokens]
    first.result(20), second.result(20)
    fresh = session.create_context()
    session.append_tokens(fresh, tokens(50))
    assert generate(session, fresh, sampler=GREEDY, max_tokens=8, stop=NEVER) == got


def test_forward_takes_tokens_from_the_buffer_or_extends(session):
    expected = generate(session, context_of(session, 0, 20), sampler=GREEDY, max_tokens=1, stop=NEVER)
    buffered = context_of(session, 0, 25)
    head = ForwardRequest(context=buffered, tokens=tuple(tokens(20)), samplers=(SampleAt((19,), GREEDY),))
    assert list(session.forward(head).result(20).results) == expected
    assert session.context_state(buffered).buffered == tuple(tokens(25)[20:])
    empty = session.create_context()
    output = session.forward(
        ForwardRequest(context=empty, tokens=tuple(tokens(20)), samplers=(SampleAt((19,), GREEDY),))
    ).result(20)
    assert list(output.results) == expected
    assert session.context_state(empty).last_position == 19


def test_pages_by_hand(session):
    context = session.create_context()
    session.reserve_pages(context, 3)
    session.forward(ForwardRequest(context=context, tokens=tuple(tokens(40)))).result(20)
    assert session.context_state(context).committed_pages == 0
    session.set_cursor(context, 37)
    session.commit_pages(context, [0, 1])
    state = session.context_state(context)
    assert (state.committed_pages, state.cursor, state.last_position) == (2, 5, 36)
    with pytest.raises(BadRequest):
        session.set_cursor(context, 6)
    session.release_pages(context, 1)
    assert session.context_state(context).last_position == 31


def test_names_outlive_their_program_and_are_the_owners(programs, served):
    with programs("ada") as first:
        context = first.create_context("story")
        first.append_tokens(context, tokens(30))
        first.flush(context).result(20)
        with pytest.raises(NameTaken):
            first.fork_context(context, "story")
    later, stranger = programs("ada"), programs("bob")
    assert stranger.lookup_context("story") is None
    found = later.lookup_context("story")
    assert found is not None and later.context_state(found).last_position == 28
    other = later.create_context()
    later.release_context(found)
    assert later.lookup_context("story") is None
    assert later.fork_context(other, "story")


def test_a_name_left_by_a_finished_program_is_replaced(programs):
    for _ in range(2):
        with programs("ada") as session:
            context = session.create_context()
            assert session.fork_context(context, "beam-0")


def test_ids_of_others_are_not_found(programs, session):
    other = programs("ada")
    context = session.create_context()
    for call in (other.context_state, other.flush, other.fork_context, other.release_context, other.cue):
        with pytest.raises(NotFound):
            call(context)
    session.release_context(context)
    with pytest.raises(NotFound):
        session.context_state(context)
    with pytest.raises(NotFound):
        session.forward(ForwardRequest(context=context, tokens=(1,)))


def test_a_closed_session_says_so(session):
    session.close()
    session.close()
    with pytest.raises(NotFound, match="closed"):
        session.create_context()
    with pytest.raises(NotFound, match="closed"):
        session.forward(ForwardRequest(tokens=(1,)))


def test_limits(programs):
    session = programs(limits=SessionLimits(contexts=2))
    first = session.create_context()
    session.fork_context(first)
    with pytest.raises(LimitExceeded):
        session.create_context()
    session.release_context(first)
    session.create_context()


def test_wrong_values_are_refused_by_name(session):
    context = session.create_context()
    for wrong in (-1, session.model.vocab_size, True, "a"):
        with pytest.raises(BadRequest, match="tokens"):
            session.append_tokens(context, [wrong])
    with pytest.raises(BadRequest, match="logit_mask"):
        session.forward(ForwardRequest(tokens=(1,), samplers=(SampleAt((0,), GREEDY),), logit_mask=(5,)))
    with pytest.raises(BadRequest, match="positions"):
        session.forward(ForwardRequest(tokens=(1,), positions=(session.model.max_context,))).result(20)


def test_what_runs_on_a_released_context_is_cancelled(session):
    context = text_context(session, "never mind ")
    stream = session.generate(GenerateRequest(context=context, stop=NEVER))
    read(stream, 3)
    session.release_context(context)
    with pytest.raises(Cancelled):
        for _ in stream:
            pass


def test_closing_a_session_frees_what_runs(programs, served: ServedModel):
    session = programs()
    streams = [
        session.generate(GenerateRequest(context=text_context(session, f"{n} " * 9), stop=NEVER)) for n in range(12)
    ]
    session.flush(text_context(session, "x" * 3000))
    for stream in streams[::2]:
        read(stream, 4)
    session.close()
    for stream in streams:
        with pytest.raises(Cancelled):
            list(stream)


def test_32_continuations_of_one_prompt_cost_one_prefill(programs, served: ServedModel):
    session = programs()
    prompt = session.encode("".join(chr(97 + n * n % 26) for n in range(1024)))
    before = served.loop.stats()["rows"]
    streams = []
    for _ in range(32):
        context = session.create_context()
        session.append_tokens(context, prompt)
        streams.append(session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=1, stop=NEVER)))
    results = {tuple(token for chunk in stream for token in chunk.tokens) for stream in streams}
    assert len(results) == 1
    rows = served.loop.stats()["rows"] - before
    assert rows <= 1024 + 32 * PAGE


def test_a_fork_of_4096_tokens_takes_less_than_a_millisecond(session):
    context = context_of(session, 4096 + 5, 1)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        child = session.fork_context(context)
        times.append(time.perf_counter() - started)
        session.release_context(child)
    assert sorted(times)[len(times) // 2] < 1e-3
