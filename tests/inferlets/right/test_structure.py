"""Constrained decoding, events, and tools: what is generated has the shape that was asked for."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from inferlet import Context, Decoder, Event, Grammar, Matcher, Model, PromptLookup, Sampler

from tests.inferlets.right.conftest import Speaker
from tests.inferlets.right.support import NEVER, greedy, holding, some_tokens

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "grams": {"type": "integer", "minimum": 1, "maximum": 900},
        },
        "required": ["name", "grams"],
    },
    {"type": "array", "items": {"enum": ["rye", "oat", 7, None]}, "minItems": 2, "maxItems": 4},
    {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"$ref": "#/$defs/b"}},
        "required": ["b"],
        "$defs": {"b": {"anyOf": [{"type": "null"}, {"const": "x"}]}},
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "refs"])
def test_constrained_text_fits_its_schema(model: Model, schema: dict[str, Any]) -> None:
    grammar, finished = Grammar.from_json_schema(json.dumps(schema)), 0
    for seed in range(1, 13):
        with holding(model, some_tokens(9, seed=seed)) as ctx:
            given = {"max_tokens": 200, "auto_flush": False}
            stream = ctx.generate(Sampler.multinomial(1.0, seed=seed), logit_mask=grammar, **given)
            text = stream.text()
        if stream.finish == "stop":
            finished += 1
            assert jsonschema_rs.is_valid({**schema, "additionalProperties": False}, json.loads(text)), text
    assert finished >= 12 * 0.95


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "(ab|c){2,4}[0-9]"), "(ab|c){2,4}[0-9]"),
        (Grammar("ebnf", 'root ::= word ("," word)*\nword ::= [a-c]{2}'), "[a-c]{2}(,[a-c]{2})*"),
    ],
)
def test_other_grammars(model: Model, grammar: Grammar, pattern: str) -> None:
    for seed in range(1, 9):
        with holding(model, some_tokens(7, seed=seed)) as ctx:
            stream = ctx.generate(
                Sampler.multinomial(1.0, seed=seed), logit_mask=grammar, max_tokens=64, auto_flush=False
            )
            text = stream.text()
        if stream.finish == "stop":
            assert re.fullmatch(pattern, text)


def test_the_loop_by_hand_is_the_engines(model: Model) -> None:
    grammar = Grammar.from_json_schema(json.dumps(SCHEMAS[0]))
    prompt = holding(model, some_tokens(9, seed=3))
    with prompt.fork() as ctx:
        wanted = ctx.generate(
            Sampler.greedy(), logit_mask=Matcher(grammar, model.tokenizer()), auto_flush=False
        ).tokens()
    matcher, tokens = Matcher(grammar, model.tokenizer()), []
    with prompt.fork() as ctx:
        while True:
            mask = matcher.next_token_logit_mask()
            chosen = ctx.generate(Sampler.greedy(), max_tokens=1, logit_mask=mask, auto_flush=False).tokens()
            if not chosen:
                break
            matcher.accept_tokens(chosen)
            tokens += chosen
    assert tokens == wanted
    assert not matcher.is_terminated
    stop = next(token for token in model.stop_tokens if mask.allows(token))
    matcher.accept_tokens([stop])
    assert matcher.is_terminated and matcher.next_token_logit_mask().allowed() == []
    matcher.reset()
    with pytest.raises(ValueError):
        matcher.accept_tokens([*wanted[:3], stop])


# Events


@pytest.mark.parametrize("most", [1, 7, 40])
def test_events_of_a_generation(model: Model, most: int) -> None:
    """One Done, the last one; its text is that of all pieces; a stop and a limit end alike."""
    for stop in (NEVER, greedy(holding(model, some_tokens(9)), 40)[5:6]):
        with holding(model, some_tokens(9)) as ctx:
            given = {"max_tokens": most, "auto_flush": False, "stop_tokens": stop}
            events = list(ctx.generate(Sampler.greedy(), decode=True, **given))
        assert [event for event in events if isinstance(event, Event.Done)] == events[-1:]
        assert "".join(event.text for event in events[:-1]) == events[-1].text
        assert all(isinstance(event, Event.Text) for event in events[:-1])


@pytest.mark.parametrize("draft", [None, PromptLookup(6)])
def test_a_generation_breaks_no_character(model: Model, draft: PromptLookup | None) -> None:
    """Its tokens are bytes; its events are whole characters, one after the other, and so is what a stop text leaves."""
    text = "Grüße \U0001f956 面包 éé. Ende"
    grammar = Grammar.from_regex(re.escape(text))
    given: dict[str, Any] = {"logit_mask": grammar, "auto_flush": False, "decode": True}
    if draft is not None:
        given["draft"] = draft
    with holding(model, some_tokens(9)) as prompt:
        pieces = list(prompt.fork().generate(Sampler.greedy(), **given))
        assert "".join(piece.text for piece in pieces[:-1]) == text
        assert not any("\ufffd" in piece.text for piece in pieces)
        stopped = prompt.fork().generate(Sampler.greedy(), stop=["é. E"], **given)
        assert stopped.text() == text.partition("é. E")[0]
        assert stopped.finish == "stop"


@pytest.mark.parametrize("cut", [1, 2, 3, 1000])
def test_no_character_is_broken(model: Model, cut: int) -> None:
    """Whatever the borders of tokens: characters of up to four bytes, a thought, and calls."""
    call = '{"name": "weigh", "arguments": {"of": "Müsli \U0001f35e"}}'
    text = f"Grüße \U0001f956!<think>Où? 面包</think>Da.<tool_call>\n{call}\n</tool_call>"
    ids = model.tokenizer().encode(text)
    decoder = Decoder(model, reasoning=True, tool_use=True)
    events: list[Any] = []
    for start in range(0, len(ids), cut):
        events += decoder.feed_all(ids[start : start + cut])
    events += decoder.finish()
    assert "�" not in "".join(getattr(event, "text", "") for event in events)
    assert "".join(event.text for event in events if isinstance(event, Event.Text)).split("<") == [
        "Grüße \U0001f956!Da."
    ]
    assert [event.text for event in events if isinstance(event, Event.ThinkingDone)] == ["Où? 面包"]
    assert sum(isinstance(event, Event.ToolCallStart) for event in events) == 1
    [found] = [event for event in events if isinstance(event, Event.ToolCall)]
    assert (found.name, json.loads(found.arguments)) == ("weigh", {"of": "Müsli \U0001f35e"})
    assert isinstance(events[-1], Event.Done)


# Tools: every family that calls some

TOOL = {
    "name": "weigh",
    "description": "Weighs something",
    "parameters": {
        "type": "object",
        "properties": {"of": {"enum": ["flour", "salt"]}, "grams": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["of", "grams"],
        "additionalProperties": False,
    },
}
CALLERS = ("llama3", "mistral3", "olmo3", "qwen2", "qwen3", "r1")


@pytest.mark.parametrize("family", CALLERS)
def test_a_call_goes_out_and_its_answer_comes_back(family: str, speaker: Speaker) -> None:
    """Forced into the family's own format, by a model that knows none, and read by the decoder like any other."""
    with speaker(family) as (model, _):
        assert model.family == family
        tool = json.dumps(TOOL)
        for seed in range(1, 4):
            with Context(model) as ctx:
                ctx.equip_tools([tool])
                ctx.user("How much flour?")
                matcher = Matcher.for_tools(model, [tool])
                sampler = Sampler.multinomial(1.0, seed=seed)
                events = list(ctx.generate(sampler, max_tokens=200, logit_mask=matcher, reasoning=True, tool_use=True))
                kinds = [type(event) for event in events]
                assert kinds.count(Event.ToolCallStart) == kinds.count(Event.ToolCall) == 1
                assert kinds[-1] is Event.Done
                [call] = [event for event in events if isinstance(event, Event.ToolCall)]
                assert call.name == "weigh"
                assert jsonschema_rs.is_valid(TOOL["parameters"], json.loads(call.arguments))
                ctx.seal()
                ctx.answer_tool("weigh", "500 g")
                ctx.cue()
                assert "500 g" in model.tokenizer().decode(ctx.buffered_tokens)
                assert len(greedy(ctx, 4)) == 4


def test_a_call_of_gpt_oss_is_read_and_answered(speaker: Speaker) -> None:
    """The one family whose calls cannot be forced: here they are written by hand."""
    written = (
        "<|channel|>analysis<|message|>Flour, surely.<|end|><|start|>assistant<|channel|>commentary to=functions.weigh "
        '<|constrain|>json<|message|>{"of": "flour", "grams": 9}'
    )
    with speaker("gpt_oss") as (model, _), Context(model) as ctx:
        ctx.equip_tools([json.dumps(TOOL)])
        ctx.user("How much flour?")
        ctx.cue()
        decoder = Decoder(model, reasoning=True, tool_use=True)
        events = [*decoder.feed_all(model.tokenizer().encode(written)), *decoder.finish()]
        assert Event.ThinkingDone("Flour, surely.") in events
        [call] = [event for event in events if isinstance(event, Event.ToolCall)]
        assert (call.name, json.loads(call.arguments)) == ("weigh", {"of": "flour", "grams": 9})
        ctx.fill(written)
        ctx.seal()
        ctx.answer_tool(call.name, "500 g")
        ctx.cue()
        assert "500 g" in model.tokenizer().decode(ctx.buffered_tokens)
        with pytest.raises(ValueError, match="gpt_oss"):
            Matcher.for_tools(model, [json.dumps(TOOL)])
