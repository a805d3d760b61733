"""Grammars, matchers, masks and decoders."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferlet import Context, Decoder, Event, Grammar, Mask, Matcher, Model, Sampler, masks
from inferlet.errors import BadRequest, LimitExceeded, NotFound

GREEDY = Sampler.greedy()
SCHEMA = json.dumps(
    {"type": "object", "properties": {"name": {"enum": ["rye", "spelt"]}}, "required": ["name"]},
)


def test_a_matcher_steps_along_a_generation(ctx: Context) -> None:
    matcher = Matcher(Grammar.from_json_schema(SCHEMA), ctx.model.tokenizer())
    found = json.loads(ctx.generate_text(GREEDY, max_tokens=200, logit_mask=matcher))
    assert found["name"] in ("rye", "spelt")


def test_a_grammar_is_enough(ctx: Context) -> None:
    assert json.loads(ctx.fork().generate_text(GREEDY, max_tokens=200, logit_mask=Grammar.from_json_schema(SCHEMA)))
    json.loads(ctx.fork().generate_text(GREEDY, max_tokens=400, logit_mask=Grammar.json()))
    assert ctx.fork().generate_text(GREEDY, logit_mask=Grammar.from_regex("(ab){3}")) == "ababab"
    assert ctx.generate_text(GREEDY, logit_mask=Grammar.from_ebnf('root ::= "x" y\ny ::= "z"')) == "xz"


def test_the_loop_by_hand_gives_the_same(ctx: Context) -> None:
    grammar = Grammar.from_regex("[a-z]{4}[0-9]{2}")
    whole = ctx.fork().generate(GREEDY, logit_mask=grammar).tokens()
    matcher = Matcher(grammar, ctx.model.tokenizer())
    ctx.cue()
    ctx.flush()
    found: list[int] = []
    while True:
        mask = matcher.next_token_logit_mask()
        tokens = ctx.generate(GREEDY, max_tokens=1, logit_mask=mask, auto_flush=False).tokens()
        if not tokens:
            break
        found += tokens
        matcher.accept_tokens(tokens)
    assert found == whole and not matcher.is_terminated
    matcher.accept_tokens(ctx.stop_tokens()[:1])
    assert matcher.is_terminated and matcher.next_token_logit_mask().allowed() == []
    with pytest.raises(BadRequest):
        matcher.accept_tokens(found[:1])
    matcher.reset()
    matcher.accept_tokens(found)


def test_a_mask_is_a_list_of_runs_when_it_is_looked_at(model: Model) -> None:
    matcher = Matcher(Grammar.from_regex("[ab]x"), model.tokenizer())
    mask = matcher.next_token_logit_mask()
    assert mask == [97, 2, model.vocab_size - 99] == mask[:] and mask.allowed() == [97, 98]
    assert mask.allows(97) and not mask.allows(96) and not mask.allows(9999) and len(mask) == 3 and mask[0] == 97
    assert list(mask) == mask.runs.tolist() and mask != [1] and mask != 97 and repr(mask).startswith("Mask.of([97, 2,")
    with pytest.raises(BadRequest, match=r"97|fit"):
        matcher.accept_tokens([120])


def test_masks_of_ones_own(ctx: Context) -> None:
    letters = ctx.model.tokenizer().encode("xyz")
    for mask in (Mask.allowing(letters), masks.runs_of(letters), [120, 3]):
        assert set(ctx.fork().generate(GREEDY, max_tokens=5, logit_mask=mask).tokens()) <= set(letters)
    unrestricted = [
        ctx.fork().generate(GREEDY, max_tokens=5, logit_mask=mask).tokens() for mask in (None, [], [0, 9999])
    ]
    assert unrestricted[0] == unrestricted[1] == unrestricted[2]


def test_masks_and_matchers_that_nobody_has_are_given_back(model: Model) -> None:
    matcher = Matcher(Grammar.from_regex("a*"), model.tokenizer())
    for _ in range(600):
        assert matcher.next_token_logit_mask()
    for _ in range(300):
        Matcher(Grammar.from_regex("a*"), model.tokenizer())
    kept = []
    with pytest.raises(LimitExceeded, match="matchers"):
        kept = [matcher.next_token_logit_mask() for _ in range(600)]
    assert not kept


@given(st.sets(st.integers(0, 300)))
def test_ids_become_runs_and_back(ids: set[int]) -> None:
    runs = masks.runs_of(ids)
    assert masks.allowed(runs) == sorted(ids) and all(runs[1:])
    assert all(masks.allows(runs, token) == (token in ids) for token in range(302))


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 70))
def test_a_window_with_sinks(position: int, window: int, sinks: int) -> None:
    seen = {at for at in range(position + 1) if at > position - window or at < sinks}
    assert masks.allowed(masks.sliding(position, window, sinks)) == sorted(seen)
    assert masks.allowed(masks.causal(position)) == list(range(position + 1))


def test_negative_ids_are_none() -> None:
    with pytest.raises(ValueError, match="-1"):
        masks.runs_of([-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grammar.from_json_schema("{"),
        lambda: Grammar.from_json_schema("false"),
        lambda: Grammar.from_json_schema({"type": "string"}),  # type: ignore[arg-type]
        lambda: Grammar.from_regex("(?=a)b"),
        lambda: Grammar.from_regex("("),
        lambda: Grammar.from_ebnf('start ::= "a"'),
        lambda: Grammar.from_ebnf("root ::= other"),
    ],
)
def test_a_grammar_that_cannot_be_is_refused_at_once(model: Model, make: object) -> None:
    with pytest.raises(BadRequest):
        make()  # type: ignore[operator]


def test_a_call_of_a_tool_can_be_forced(ctx: Context) -> None:
    tool = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"enum": ["Bonn"]}}}}
    ctx.equip_tools([json.dumps(tool)])
    matcher = Matcher.for_tools(ctx.model, [json.dumps(tool)])
    events = list(ctx.generate(GREEDY, max_tokens=400, logit_mask=matcher, tool_use=True))
    calls = [event for event in events if isinstance(event, Event.ToolCall)]
    assert [call.name for call in calls] == ["get_weather"] and set(json.loads(calls[0].arguments)) <= {"city"}
    assert sum(isinstance(event, Event.ToolCallStart) for event in events) == 1
    assert isinstance(events[-1], Event.Done)


def test_a_decoder_gives_one_event_at_a_time(model: Model) -> None:
    tokenizer = model.tokenizer()
    decoder = Decoder(model, reasoning=True, tool_use=True)
    ids = tokenizer.encode('<think>hm</think>é!<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    found = [decoder.feed(ids)]
    while decoder.pending:
        found.append(decoder.feed([]))
    assert decoder.feed([]) == Event.Text("")
    assert Event.ThinkingDone("hm") in found and Event.ToolCall("f", "{}") in found
    text = "".join(event.text for event in found if isinstance(event, Event.Text))
    assert text == "é!" and decoder.finish() == [Event.Done("é!")]


def test_a_decoder_holds_back_what_is_incomplete(model: Model) -> None:
    decoder = Decoder(model)
    first, second = "é".encode()
    assert decoder.feed_all([first]) == [] and decoder.feed_all([second]) == [Event.Text("é")]
    decoder.feed_all([first])
    decoder.reset()
    assert decoder.feed_all([97]) == [Event.Text("a")]


def test_a_stop_token_ends_a_decoders_text(model: Model) -> None:
    decoder, stop = Decoder(model), model.stop_tokens[0]
    assert decoder.feed_all([97, stop, 98]) == [Event.Text("a"), Event.Done("a"), Event.Text("b")]
    assert decoder.feed([stop]) == Event.Done("b")


def test_a_released_matcher_is_not_found(model: Model) -> None:
    matcher = Matcher(Grammar.from_regex("a"), model.tokenizer())
    matcher._host.grammars.release(matcher._handle)
    with pytest.raises(NotFound, match="matcher"):
        matcher.next_token_logit_mask()
