"""Generation: three ways to read one, what it leaves behind, and what it may be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from inferlet import Context, Event, EventStream, ForwardPass, Model, Penalties, PromptLookup, Sampler, TokenStream
from inferlet.errors import BadRequest, Cancelled, DeadlineExceeded

GREEDY = Sampler.greedy()


def test_the_three_ways_say_the_same(ctx: Context) -> None:
    forks = [ctx.fork() for _ in range(4)]
    text = forks[0].generate_text(GREEDY, max_tokens=24)
    events = list(forks[1].generate(GREEDY, max_tokens=24, decode=True))
    assert "".join(event.text for event in events if isinstance(event, Event.Text)) == text
    assert events[-1] == Event.Done(text) and sum(isinstance(event, Event.Done) for event in events) == 1
    stream = forks[2].generate(GREEDY, max_tokens=24)
    assert isinstance(stream, TokenStream)
    assert stream.text() == text
    tokens = forks[3].generate(GREEDY, max_tokens=24).tokens()
    assert ctx.model.tokenizer().decode(tokens) == text and len(tokens) == 24


def test_raw_tokens_come_step_by_step(ctx: Context) -> None:
    ctx.cue()
    stream = ctx.generate(GREEDY, max_tokens=8, auto_flush=False)
    seen = list(stream)
    assert all(isinstance(tokens, list) and tokens for tokens in seen)
    assert sum(map(len, seen)) == 8 and stream.finish == "length"
    assert list(stream) == []
    assert stream.tokens() == stream.tokens() == [token for tokens in seen for token in tokens]
    assert stream.text() == ctx.model.tokenizer().decode(stream.token_ids)


def test_the_kind_of_stream_goes_by_what_is_asked(ctx: Context) -> None:
    for options in ({"decode": True}, {"reasoning": True}, {"tool_use": True}):
        stream = ctx.generate(GREEDY, max_tokens=1, **options)
        assert isinstance(stream, EventStream)
        assert isinstance(stream.collect_text(), str)
    assert ctx.generate(GREEDY, max_tokens=2).collect_tokens() != []
    assert isinstance(ctx.generate(GREEDY, max_tokens=2).collect_text(), str)


def test_no_tokens_are_an_empty_stream(ctx: Context) -> None:
    assert list(ctx.generate(GREEDY, max_tokens=0)) == []
    assert list(ctx.generate(GREEDY, max_tokens=0, decode=True)) == [Event.Done("")]
    assert ctx.generate_text(GREEDY, max_tokens=0) == ""


def test_a_cue_is_written_unless_told_otherwise(model: Model) -> None:
    def begun(auto_flush: bool) -> str:
        context = Context(model)
        context.user("Hi")
        context.generate(GREEDY, max_tokens=0, auto_flush=auto_flush).tokens()
        return model.tokenizer().decode(context.buffered_tokens)

    assert begun(True) == begun(False) + "<|im_start|>assistant\n"


def test_nothing_buffered_is_an_error(model: Model) -> None:
    with pytest.raises(BadRequest, match="at least one buffered token"):
        Context(model).generate(GREEDY, auto_flush=False).tokens()


def test_it_ends_at_a_stop_token_which_stays_buffered(ctx: Context) -> None:
    stream = ctx.generate(GREEDY)
    tokens = stream.tokens()
    assert stream.finish == "stop" and not set(tokens) & set(ctx.stop_tokens())
    assert len(ctx.buffered_tokens) == 1 and ctx.buffered_tokens[0] in ctx.stop_tokens()
    position = ctx.last_position
    ctx.user("And then?")
    assert ctx.generate_text(GREEDY, max_tokens=4) != "" and (ctx.last_position or 0) > (position or 0)


def test_a_turn_goes_on_where_it_was(ctx: Context) -> None:
    whole = ctx.fork().generate(GREEDY, max_tokens=12).tokens()
    parts = ctx.generate(GREEDY, max_tokens=5).tokens()
    while len(parts) < 12:
        parts += ctx.generate(GREEDY, max_tokens=1, auto_flush=False).tokens()
    assert parts == whole


def test_streams_that_were_started_run_together(ctx: Context) -> None:
    ctx.cue()
    ctx.flush()
    streams = [ctx.fork().generate(Sampler.top_p(seed=7), max_tokens=16, auto_flush=False) for _ in range(6)]
    texts = {stream.text() for stream in streams}
    assert len(texts) == 1


def test_breaking_off_keeps_what_was_read(ctx: Context) -> None:
    ctx.cue()
    whole = ctx.fork().generate(GREEDY, max_tokens=9, auto_flush=False).tokens()
    first = []
    for tokens in ctx.generate(GREEDY, max_tokens=9, auto_flush=False):
        first += tokens
        if len(first) == 4:
            break
    rest = ctx.generate(GREEDY, max_tokens=5, auto_flush=False).tokens()
    assert first + rest == whole


@pytest.mark.parametrize(
    "use",
    [
        lambda ctx: ctx.user("Stop."),
        lambda ctx: ctx.cue(),
        lambda ctx: ctx.seal(),
        lambda ctx: ctx.fill("x"),
        lambda ctx: ctx.flush(),
        lambda ctx: ctx.generate_text(GREEDY, max_tokens=1),
    ],
)
def test_another_use_of_the_context_ends_its_stream(ctx: Context, use: Callable[[Context], Any]) -> None:
    stream = ctx.generate(GREEDY, decode=True, max_tokens=200)
    next(stream)
    use(ctx)
    with pytest.raises(Cancelled, match="used otherwise"):
        list(stream)


def test_a_stream_can_be_closed(ctx: Context) -> None:
    with ctx.generate(GREEDY, max_tokens=200) as stream:
        next(stream)
    stream.close()
    assert list(stream) == [] and stream.finish is None
    ctx.generate(GREEDY, max_tokens=200)  # its last reference goes, and it with that
    ctx.user("Next.")


def test_a_context_may_be_forked_and_looked_at_while_it_generates(ctx: Context) -> None:
    stream = ctx.generate(GREEDY, max_tokens=30)
    first = next(stream)
    child, state = ctx.fork(), ctx.state()
    assert state.page_size == 4 and stream.tokens()[: len(first)] == first and len(stream.token_ids) == 30
    assert len(child.generate(GREEDY, max_tokens=2, auto_flush=False).tokens()) == 2


def test_log_probabilities_go_with_the_tokens(ctx: Context) -> None:
    stream = ctx.generate(Sampler.multinomial(seed=3), max_tokens=6, logprobs=3)
    tokens = stream.tokens()
    assert [entry.token for entry in stream.logprobs] == tokens
    for entry in stream.logprobs:
        values = [value for _, value in entry.top]
        assert len(values) == 3 and values == sorted(values, reverse=True) and entry.logprob <= values[0] <= 0


def test_stop_texts_and_stop_tokens(ctx: Context) -> None:
    text = ctx.fork().generate_text(GREEDY, max_tokens=40)
    stop = text[5:8]
    assert ctx.fork().generate_text(GREEDY, max_tokens=40, stop=[stop]) == text[: text.index(stop)]
    never = ctx.fork().generate(GREEDY, max_tokens=40, stop_tokens=[])
    assert len(never.tokens()) == 40
    first = ctx.fork().generate(GREEDY, max_tokens=1).tokens()
    at_once = ctx.generate(GREEDY, stop_tokens=first)
    assert at_once.tokens() == [] and at_once.finish == "stop"


def test_a_seed_repeats_what_it_drew(ctx: Context) -> None:
    drawn = [ctx.fork().generate(Sampler.multinomial(1.0, seed), max_tokens=20).tokens() for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("sampler", [Sampler.multinomial(1.0, seed=7), Sampler.top_p(1.2, 0.9, seed=8)])
def test_a_seed_draws_the_same_in_one_generation_in_many_and_in_passes(ctx: Context, sampler: Sampler) -> None:
    ctx.cue()
    ctx.flush()
    given: dict[str, Any] = {"auto_flush": False, "stop_tokens": []}
    whole = ctx.fork().generate(sampler, max_tokens=16, **given).tokens()
    steps, passes, waiting = ctx.fork(), ForwardPass(ctx.model).context(ctx), ctx.buffered_tokens
    by_steps: list[int] = []
    by_passes: list[int] = []
    for _ in whole:
        by_steps += steps.generate(sampler, max_tokens=1, **given).tokens()
        waiting = passes.input_tokens(waiting).sampler([0], sampler).execute().tokens
        by_passes += waiting
    assert whole == by_steps == by_passes and len(set(whole)) > 3


def test_penalties_and_bias(ctx: Context) -> None:
    letter = ctx.model.tokenizer().encode("q")[0]
    tokens = ctx.fork().generate(GREEDY, max_tokens=5, penalties=Penalties(bias={letter: 100.0})).tokens()
    assert tokens == [letter] * 5
    spread = Penalties(repetition=1.5, frequency=2.0, presence=2.0)
    assert len(set(ctx.generate(GREEDY, max_tokens=12, penalties=spread, stop_tokens=[]).tokens())) > 6


def test_drafts_change_the_steps_and_not_the_text(ctx: Context) -> None:
    plain = ctx.fork().generate(GREEDY, max_tokens=60, stop_tokens=[]).tokens()
    stream = ctx.generate(GREEDY, max_tokens=60, stop_tokens=[], draft=PromptLookup(tokens=4))
    assert stream.tokens() == plain


def test_time_that_is_over(ctx: Context) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        ctx.generate_text(GREEDY, timeout=0.0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_tokens": -1}, BadRequest, "max_tokens"),
        ({"logprobs": 65}, BadRequest, "logprobs"),
        ({"top_k": 3}, TypeError, "unknown options top_k; there are stop"),
        ({"stop": "end"}, TypeError, r"\['end'\]"),
        ({"stop": [""]}, BadRequest, "stop"),
        ({"zo_seed": 4}, BadRequest, "adapter"),
        ({"logit_mask": "abc"}, TypeError, "Matcher or a Grammar"),
        ({"logit_mask": 7}, TypeError, "Matcher or a Grammar"),
        ({"logit_mask": lambda tokens: [0, 9]}, TypeError, "no function; ask it between"),
    ],
)
def test_what_cannot_be_asked(ctx: Context, options: dict[str, Any], error: type[Exception], text: str) -> None:
    before = ctx.state()
    with pytest.raises(error, match=text):
        ctx.generate_text(GREEDY, auto_flush=False, **options)
    assert ctx.state() == before


def test_samplers_that_yield_no_token_are_for_passes(ctx: Context) -> None:
    for sampler in (Sampler.dist(), Sampler.embedding()):
        with pytest.raises(BadRequest, match="forward pass"):
            ctx.generate_text(sampler)
    with pytest.raises(BadRequest, match="top_p"):
        ctx.generate_text(Sampler.top_p(top_p=1.5))


def test_events_can_be_matched(ctx: Context) -> None:
    found = []
    for event in ctx.generate(GREEDY, max_tokens=6, decode=True, reasoning=True, tool_use=True):
        match event:
            case Event.Text(text=text):
                found.append(text)
            case Event.Done(text):
                assert text == "".join(found)
                break
            case _:
                raise AssertionError(event)
    assert len("".join(found)) == 6


def test_what_is_left_of_a_stream_comes_in_one_item(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    take = ctx._host.waits.take
    monkeypatch.setattr(ctx._host.waits, "take", lambda wait: taken.append(wait) or take(wait))
    stream = ctx.fork().generate(GREEDY, max_tokens=30)
    first = next(stream)
    assert stream.tokens()[: len(first)] == first and len(stream.token_ids) == 30 and len(taken) == 2
    assert ctx.fork().generate(GREEDY, max_tokens=30).text() == ctx.model.tokenizer().decode(stream.token_ids)
    assert ctx.fork().generate(GREEDY, max_tokens=30, decode=True).text() != ""
    assert ctx.fork().generate_text(GREEDY, max_tokens=30) != "" and len(taken) == 5
