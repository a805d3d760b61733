"""Forced tool calls: every family's form, read back; and what is refused."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest

from bakehouse.engine.chat.base import ChatFormat
from bakehouse.engine.chat.create import create_format
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar.llg import LlgCompiler
from bakehouse.engine.grammar.tools import FAMILIES
from bakehouse.engine.params import Done, Text, ToolCall, ToolCallStart
from bakehouse.engine.tokenizer.hf import HFTokenizer
from tests.engine import tokenizers as tiny
from tests.engine.grammar.adversary import LIKES, Adversary
from tests.engine.grammar.texts import COMPILER, fitting
from tests.engine.grammar.vocabularies import BPE_STOP, bpe_tokenizer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"$ref": "#/$defs/days"}},
    "required": ["city"],
    "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 14}},
}
TOOLS = (
    json.dumps({"name": "weather", "parameters": WEATHER}),
    json.dumps({"type": "function", "function": {"name": "now", "description": "The time."}}),
)
SCHEMAS = {"weather": WEATHER, "now": {"type": "object", "maxProperties": 0}}

R1_OPENS = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
R1_CLOSES = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
JSON_CALL = '{{"name": "{}", "%s": {}}}'
FORMS = {
    "qwen3": "<tool_call>\n" + JSON_CALL % "arguments" + "\n</tool_call>",
    "qwen2": "<tool_call>\n" + JSON_CALL % "arguments" + "\n</tool_call>",
    "llama3": JSON_CALL % "parameters",
    "olmo3": "<function_calls>" + JSON_CALL % "arguments" + "</function_calls>",
    "mistral3": "[TOOL_CALLS]{}[ARGS]{}",
    "r1": R1_OPENS + "{}\n```json\n{}\n```" + R1_CLOSES,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_writes_calls_in_its_own_form(family: str) -> None:
    form = FORMS[family]
    good = [form.format("weather", '{"city": "Oslo", "days": 3}'), form.format("now", "{}")]
    bad = [
        form.format("weather", '{"city": "Oslo", "days": 15}'),
        form.format("weather", "{}"),
        form.format("now", '{"city": "Oslo"}'),
        form.format("other", "{}"),
        "Some text.",
        "",
    ]
    assert fitting(COMPILER.tool_matcher(family, TOOLS), good + bad) == set(good)


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_is_well_formed_whatever_the_sampler_likes(family: str, like: str) -> None:
    tokenizer = bpe_tokenizer()
    compiler = LlgCompiler(tokenizer, BPE_STOP)
    out = Adversary(tokenizer, BPE_STOP, like, 7, willing=False).run(compiler.tool_matcher(family, TOOLS), 1500)
    assert out is not None
    name, arguments = read(family, out.decode())
    assert jsonschema_rs.validator_for(SCHEMAS[name]).is_valid(json.loads(arguments))


def read(family: str, text: str) -> tuple[str, str]:
    """Name and arguments of a call, by the words of each family."""
    if family in ("mistral3", "r1"):
        before, middle, after = FORMS[family].split("{}")
        name, _, arguments = text.removeprefix(before).removesuffix(after).partition(middle)
        return name, arguments
    before, _, after = FORMS[family].partition('{{"name"')
    call = json.loads(text.removeprefix(before).removesuffix(after.rpartition("}}")[2]))
    assert list(call) == ["name", "parameters" if family == "llama3" else "arguments"]
    return call["name"], json.dumps(call["arguments" if family != "llama3" else "parameters"])


def test_markers_that_are_tokens_are_forced_as_tokens() -> None:
    tokenizer = bpe_tokenizer()
    matcher = LlgCompiler(tokenizer, BPE_STOP).tool_matcher("qwen3", TOOLS)
    opening = tokenizer.id_of("<tool_call>")
    assert opening is not None
    mask = int.from_bytes(matcher.mask(), "little")
    assert mask == 1 << opening
    with pytest.raises(BadRequest):
        matcher.accept(tokenizer.encode("<")[:1])
    matcher.accept([opening])


@pytest.mark.parametrize(
    ("family", "tools", "detail"),
    [
        (
            "gemma",
            TOOLS,
            "family: 'gemma' has no form of tool calls; these have: qwen3, qwen2, llama3, olmo3, mistral3, r1",
        ),
        ("qwen3", (), "tools: a call needs a tool"),
        ("qwen3", ("{",), "tools[0]: a tool is a JSON object"),
        ("qwen3", ('{"function": {}}',), "tools[0]: a tool is a JSON object with a name"),
        ("qwen3", ("[]",), "tools[0]: a tool is a JSON object with a name"),
        ("qwen3", ('{"name": "a"}', '{"name": "a"}'), "tools: two tools have the same name"),
        ("qwen3", ('{"name": "a", "parameters": {"type": "array"}}',), "tools[0].parameters: must be the schema of an"),
        (
            "llama3",
            ('{"name": "a", "parameters": {"properties": {"b": {"not": {}}}}}',),
            "tools[0].parameters: the keyword not is not supported, at #/properties/b",
        ),
    ],
)
def test_what_is_no_call_is_refused(family: str, tools: tuple[str, ...], detail: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(detail)):
        COMPILER.tool_matcher(family, tools)


@pytest.mark.parametrize("like", ["random", "longest", "opens", "escapes"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_s_own_decoder_reads_the_call(family: str, like: str) -> None:
    """Its tokenizer and stop tokens too: what is forced is what the engine will find."""
    tokenizer, chat = family_of(family)
    matcher = LlgCompiler(tokenizer, chat.stop_tokens).tool_matcher(family, TOOLS)
    adversary = Adversary(tokenizer, chat.stop_tokens, like, 11, willing=False)
    ids = adversary.tokens(matcher, 1500)
    assert ids is not None
    decoder = chat.decoder(tool_use=True)
    events = [*decoder.feed(ids), *decoder.finish()]
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [type(event) for event in events if not isinstance(event, Text)] == [ToolCallStart, ToolCall, Done]
    assert jsonschema_rs.validator_for(SCHEMAS[calls[0].name]).is_valid(json.loads(calls[0].arguments))


def family_of(name: str) -> tuple[HFTokenizer, ChatFormat]:
    family = tiny.FAMILIES[name]
    config = {"bos_token": family.bos, "eos_token": family.eos}
    tokenizer = HFTokenizer(tiny.build(name), config=config, chat_templates={"default": family.template})
    return tokenizer, create_format(tokenizer, family.architecture)
