"""What a host of programs asks of a session: limits of its own, packed masks, streams that say when they are ready."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, Cancelled, LimitExceeded
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import (
    GREEDY,
    Decode,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    SampleAt,
    Stop,
    Text,
)
from bakehouse.engine.session import SessionLimits
from tests.engine.session.support import Programs, generate, text_context

NEVER = Stop(tokens=())


def test_a_session_may_have_limits_of_its_own(served: ServedModel) -> None:
    engine = Engine([served], SessionLimits(contexts=2))
    with (
        engine.session("dummy", "ada") as usual,
        engine.session("dummy", "ada", "p", SessionLimits(pages=3)) as bounded,
    ):
        assert [info.name for info in engine.served()] == ["dummy"]
        free, _ = usual.create_context(), usual.create_context()
        with pytest.raises(LimitExceeded, match="2 contexts"):
            usual.create_context()
        for _ in range(2):
            bounded.create_context()
        which = text_context(bounded, "x" * 40)
        with pytest.raises(LimitExceeded, match=r"pages: .* at most 3"):
            generate(bounded, which, sampler=GREEDY, max_tokens=20, stop=NEVER)
        assert bounded.context_state(which).cursor + 16 * bounded.context_state(which).committed_pages == 48
        usual.append_tokens(free, [65])
        assert len(generate(usual, free, sampler=GREEDY, max_tokens=60, stop=NEVER)) == 60
    assert not served.planner.contexts.charges.problems([])


def test_few_jobs_are_counted_when_they_have_ended(programs: Programs) -> None:
    session = programs(limits=SessionLimits(jobs=2))
    for _ in range(5):
        generate(session, text_context(session, "abc"), sampler=GREEDY, max_tokens=1)
    open_ = [
        session.generate(GenerateRequest(context=text_context(session, "abc"), sampler=GREEDY, stop=NEVER))
        for _ in range(2)
    ]
    with pytest.raises(LimitExceeded, match="2 passes"):
        session.flush(text_context(session, "abc"))
    for stream in open_:
        stream.close()


def test_masks_may_be_packed(programs: Programs) -> None:
    session = programs()
    matcher = session.create_matcher(GrammarSpec("regex", "[a-f]+")).result()
    bits = session.matcher_bits(matcher)
    assert brle.from_bits(bits, session.model.vocab_size) == session.matcher_mask(matcher)
    found = [
        generate(session, text_context(session, "abc"), sampler=GREEDY, max_tokens=5, stop=NEVER, logit_mask=mask)
        for mask in (bits, session.matcher_mask(matcher))
    ]
    assert found[0] == found[1]
    for wrong in (bits[:-4], bits + bytes(4), bytes(len(bits))):
        with pytest.raises(BadRequest, match="logit_mask"):
            session.forward(ForwardRequest(tokens=(1,), samplers=(SampleAt((0,), GREEDY),), logit_mask=wrong))
    assert session.forward(ForwardRequest(tokens=(1,), samplers=(SampleAt((0,), GREEDY),), logit_mask=b"")).result()


class Rung:
    """A bell that remembers, and wakes whoever waits."""

    def __init__(self) -> None:
        self.rings = 0
        self.news = threading.Semaphore(0)

    def ring(self, wake: Callable[[], None]) -> None:
        self.rings += 1
        wake()

    def flush(self) -> None:
        self.news.release()


def test_a_stream_says_when_it_is_ready_and_when_complete(programs: Programs) -> None:
    session = programs()
    stream = session.generate(
        GenerateRequest(context=text_context(session, "abc"), sampler=GREEDY, max_tokens=5, stop=NEVER)
    )
    bell = Rung()
    stream.listen(bell, lambda: None)
    while not stream.complete:
        assert bell.news.acquire(timeout=20)
    assert stream.ready and stream.taken == 0
    tokens = []
    while not stream.ended:
        chunk = stream.poll()
        assert chunk is not None
        tokens += chunk.tokens
    assert len(tokens) == stream.taken == 5
    assert stream.ready, "its end is there"


def test_a_stream_that_is_closed_is_ready_with_its_error(programs: Programs) -> None:
    session = programs()
    which = text_context(session, "abc")
    stream = session.generate(GenerateRequest(context=which, sampler=GREEDY, stop=NEVER))
    session.release_context(which)
    assert stream.ready and stream.complete
    with pytest.raises(Cancelled):
        list(stream)
    assert stream.ended


def test_what_was_taken_away_is_not_kept(programs: Programs) -> None:
    """A program that writes and takes back for ever holds no more than it has."""
    session = programs()
    which = session.create_context()
    for text in ("one", "two"):
        session.user(which, text)
        session.cue(which)
        session.append_tokens(which, [65] * 100)
        session.set_buffer(which, [])
        session.append_tokens(which, [65] * 100)
    kept = session._context(which).transcript
    assert kept.turns == () and kept.tail == (65,)
    session.seal(which)
    session.user(which, "three")
    assert session.decode(session.context_state(which).buffered).endswith(
        "<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n"
    )


def test_a_decoder_does_not_hold_up_the_engine(served: ServedModel, programs: Programs) -> None:
    """Long texts take it a second: it works while the engine is between two steps, and the other way round."""
    session = programs()
    decoder = session.create_decoder(Decode())
    events: list[object] = []
    with served.loop.lock:  # as the engine's thread has it
        feeding = threading.Thread(target=lambda: events.extend(session.decoder_feed(decoder, [97, 98])), daemon=True)
        feeding.start()
        feeding.join(10)
        assert events == [Text("ab")]


def test_a_long_text_does_not_hold_up_the_model(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one program's words become ids, the others' tokens come."""
    session, other = programs(), programs()
    which, there = session.create_context(), text_context(other, "abc")
    chat, begun, go_on = session._served.chat, threading.Event(), threading.Event()
    add = type(chat).add

    def slow(self: object, transcript: object, turn: object) -> object:
        begun.set()
        assert go_on.wait(20)
        return add(self, transcript, turn)  # type: ignore[arg-type]

    monkeypatch.setattr(type(chat), "add", slow)
    writer = threading.Thread(target=session.user, args=(which, "a long text"))
    writer.start()
    assert begun.wait(20)
    assert len(generate(other, there, sampler=GREEDY, max_tokens=5, stop=NEVER)) == 5
    session.append_tokens(which, [65])  # what comes meanwhile stands before it
    go_on.set()
    writer.join()
    assert session.decode(session.context_state(which).buffered) == "A<|im_start|>user\na long text<|im_end|>\n"
