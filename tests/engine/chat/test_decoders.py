"""Decoders: events from ids, whatever the ids are cut into."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bakehouse.engine.chat.create import create_format
from bakehouse.engine.params import Done, Text, Thinking, ThinkingDone, ToolCall, ToolCallStart
from bakehouse.engine.tokenizer.bytes import ByteTokenizer
from bakehouse.engine.tokenizer.hf import HFTokenizer
from tests.engine import tokenizers as tiny

CALL = ToolCallStart()


def _format(name):
    family = tiny.FAMILIES[name]
    config = {"bos_token": family.bos, "eos_token": family.eos}
    ours = HFTokenizer(tiny.build(name), config=config, chat_templates={"default": family.template})
    return ours, create_format(ours, family.architecture)


FORMATS = {name: _format(name) for name in tiny.FAMILIES}
FORMATS["dummy"] = (ByteTokenizer(), create_format(ByteTokenizer(), "dummy"))


def events_of(name, pieces, *, reasoning=True, tool_use=True):
    """The events of texts or ids fed one after the other, and those of the end."""
    ours, chat = FORMATS[name]
    decoder = chat.decoder(reasoning=reasoning, tool_use=tool_use)
    events = []
    for piece in pieces:
        events += decoder.feed(ours.encode(piece) if isinstance(piece, str) else piece)
    return events + decoder.finish()


def joined(events):
    """Neighbouring chunks of one kind as one."""
    result = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Text) and isinstance(last, Text):
            result[-1] = Text(last.text + event.text)
        elif isinstance(event, Thinking) and isinstance(last, Thinking):
            result[-1] = Thinking(last.text + event.text)
        else:
            result.append(event)
    return result


def call(name="weigh", **arguments):
    return ToolCall(name, json.dumps(arguments))


QWEN_CALL = '<tool_call>\n{"name": "weigh", "arguments": {"what": "flour"}}\n</tool_call>'
FLOUR = call(what="flour")
R1_CALL = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weigh\n```json\n{"what": "flour"}\n```<｜tool▁call▁end｜>'
R1_CALLS = f"<｜tool▁calls▁begin｜>{R1_CALL}\n{R1_CALL}<｜tool▁calls▁end｜>"
HARMONY = (
    "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.weigh <|constrain|>json<|message|>{"what": "flour"}'
)

CUT_OFF = '[TOOL_CALLS]weigh[ARGS]{"wh'

#: family, generated text, what must come out with both decoders on.
CASES = [
    ("qwen3", "", [Done("")]),
    ("qwen3", "Hello.", [Text("Hello."), Done("Hello.")]),
    (
        "qwen3",
        "<think>\nhm\n</think>\n\nYes",
        [Thinking("\nhm\n"), ThinkingDone("\nhm\n"), Text("\n\nYes"), Done("\n\nYes")],
    ),
    ("qwen3", "<think>cut off", [Thinking("cut off"), Done("")]),
    (
        "qwen3",
        "<think>a</think>b<think>c</think>",
        [Thinking("a"), ThinkingDone("a"), Text("b"), Thinking("c"), ThinkingDone("c"), Done("b")],
    ),
    ("qwen3", "</think>", [Text("</think>"), Done("</think>")]),
    ("qwen3", "<think>a<think>b</think>", [Thinking("a<think>b"), ThinkingDone("a<think>b"), Done("")]),
    ("qwen3", QWEN_CALL, [CALL, FLOUR, Done("")]),
    (
        "qwen3",
        f"I weigh.\n{QWEN_CALL}\n{QWEN_CALL} Done",
        [Text("I weigh.\n"), CALL, FLOUR, Text("\n"), CALL, FLOUR, Text(" Done"), Done("I weigh.\n\n Done")],
    ),
    (
        "qwen3",
        f"<think>Call:{QWEN_CALL} good</think>Yes",
        [Thinking("Call:"), CALL, FLOUR, Thinking(" good"), ThinkingDone("Call: good"), Text("Yes"), Done("Yes")],
    ),
    (
        "qwen3",
        f"<think>a</think>{QWEN_CALL}",
        [Thinking("a"), ThinkingDone("a"), CALL, FLOUR, Done("")],
    ),
    # The marker as a word, in text and in reasoning: not a call, nothing held back.
    ("qwen3", "write <tool_call> here", [Text("write <tool_call> here"), Done("write <tool_call> here")]),
    (
        "qwen3",
        '<think>use <tool_call> {"</think>Yes',
        [Thinking("use "), CALL, Thinking('<tool_call> {"</think>Yes'), Done("")],
    ),
    (
        "qwen3",
        "<think>use <tool_call> {</think>Yes",
        [
            Thinking("use "),
            CALL,
            Thinking("<tool_call> {"),
            ThinkingDone("use <tool_call> {"),
            Text("Yes"),
            Done("Yes"),
        ],
    ),
    # A closing marker within a string of the arguments.
    (
        "qwen3",
        '<tool_call>{"name": "say", "arguments": {"text": "</tool_call>\\"</tool_call>"}}</tool_call>',
        [CALL, call("say", text='</tool_call>"</tool_call>'), Done("")],
    ),
    ("qwen3", '<tool_call>{"name": "a"}</tool_call>', [CALL, call("a"), Done("")]),
    ("qwen3", '<tool_call>{"name": "a", "arguments": "{\\"b\\": 1}"}</tool_call>', [CALL, call("a", b=1), Done("")]),
    (
        "qwen3",
        '<tool_call>{"name": 1}</tool_call>.',
        [CALL, Text('<tool_call>{"name": 1}</tool_call>.'), Done('<tool_call>{"name": 1}</tool_call>.')],
    ),
    ("qwen3", '<tool_call>{"name": "a', [CALL, Text('<tool_call>{"name": "a'), Done('<tool_call>{"name": "a')]),
    (
        "qwen3",
        '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>',
        [
            CALL,
            Text('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>'),
            Done('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>'),
        ],
    ),
    ("qwen3", "a <thi", [Text("a <thi"), Done("a <thi")]),
    ("qwen2", f"a{QWEN_CALL}", [Text("a"), CALL, FLOUR, Done("a")]),
    ("dummy", f"<think>é</think>{QWEN_CALL}", [Thinking("é"), ThinkingDone("é"), CALL, FLOUR, Done("")]),
    # The cue of these opened the reasoning.
    ("olmo3", "so</think>Yes", [Thinking("so"), ThinkingDone("so"), Text("Yes"), Done("Yes")]),
    ("olmo3", "<think>so</think>Yes", [Thinking("so"), ThinkingDone("so"), Text("Yes"), Done("Yes")]),
    (
        "olmo3",
        '</think><function_calls>[{"name": "weigh", "arguments": {"what": "flour"}}, {"name": "b"}]</function_calls>',
        [Thinking(""), ThinkingDone(""), CALL, FLOUR, CALL, call("b"), Done("")],
    ),
    (
        "olmo3",
        "</think><function_calls>weigh(what='flour')\nmix.fast(times=[1, 2.5], slow=false, what=null)</function_calls>",
        [
            Thinking(""),
            ThinkingDone(""),
            CALL,
            FLOUR,
            CALL,
            call("mix.fast", times=[1, 2.5], slow=False, what=None),
            Done(""),
        ],
    ),
    (
        "olmo3",
        "</think><function_calls>weigh(open('x'))</function_calls>",
        [
            Thinking(""),
            ThinkingDone(""),
            CALL,
            Text("<function_calls>weigh(open('x'))</function_calls>"),
            Done("<function_calls>weigh(open('x'))</function_calls>"),
        ],
    ),
    ("r1", "so\n</think>\n\nYes", [Thinking("so\n"), ThinkingDone("so\n"), Text("\nYes"), Done("\nYes")]),
    ("r1", f"</think>{R1_CALLS}", [Thinking(""), ThinkingDone(""), CALL, FLOUR, CALL, FLOUR, Done("")]),
    (
        "r1",
        '</think><｜tool▁call▁begin｜>weigh<｜tool▁sep｜>{"what": "flour"}<｜tool▁call▁end｜>',
        [Thinking(""), ThinkingDone(""), CALL, FLOUR, Done("")],
    ),
    ("llama3", '{"name": "weigh", "parameters": {"what": "flour"}}', [CALL, FLOUR, Done("")]),
    ("llama3", '\n {"name": "weigh", "parameters": {"what": "flour"}}\n', [CALL, FLOUR, Done("")]),
    ("llama3", '<|python_tag|>{"name": "weigh", "parameters": {"what": "flour"}}', [CALL, FLOUR, Done("")]),
    ("llama3", '{"name": "weigh"} then', [Text('{"name": "weigh"} then'), Done('{"name": "weigh"} then')]),
    ("llama3", 'Ah {"name": "weigh"}', [Text('Ah {"name": "weigh"}'), Done('Ah {"name": "weigh"}')]),
    ("llama3", '{"answer": 1}', [Text('{"answer": 1}'), Done('{"answer": 1}')]),
    ("llama3", '{"name": "we', [Text('{"name": "we'), Done('{"name": "we')]),
    ("llama3", "  hello", [Text("  hello"), Done("  hello")]),
    ("llama3", '{"name": "a", "parameters": {"b": "}"}}', [CALL, call("a", b="}"), Done("")]),
    ("mistral3", '[TOOL_CALLS]weigh[ARGS]{"what": "flour"}', [CALL, FLOUR, Done("")]),
    (
        "mistral3",
        'Now[TOOL_CALLS]weigh[ARGS]{"what": "flour"}[TOOL_CALLS]weigh[ARGS]{"what": "flour"}',
        [Text("Now"), CALL, FLOUR, CALL, FLOUR, Done("Now")],
    ),
    (
        "mistral3",
        '[TOOL_CALLS] [{"name": "weigh", "arguments": {"what": "flour"}}, {"name": "b", "arguments": {}}]',
        [CALL, FLOUR, CALL, call("b"), Done("")],
    ),
    ("mistral3", CUT_OFF, [CALL, Text(CUT_OFF), Done(CUT_OFF)]),
    ("gemma", "<think>a</think>", [Text("<think>a</think>"), Done("<think>a</think>")]),
    ("gpt_oss", HARMONY, [Thinking("So."), ThinkingDone("So."), Text("I look."), CALL, FLOUR, Done("I look.")]),
    (
        "gpt_oss",
        "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>Yes",
        [Thinking("So."), ThinkingDone("So."), Text("Yes"), Done("Yes")],
    ),
    ("gpt_oss", "no header at all", [Text("no header at all"), Done("no header at all")]),
    ("gpt_oss", "<|channel|>final", [Text("<|channel|>final"), Done("<|channel|>final")]),
    (
        "gpt_oss",
        '<|channel|>commentary to=functions.weigh<|message|>{"what": "<|end|>"}<|end|>',
        [CALL, call(what="<|end|>"), Done("")],
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES, ids=[f"{n}-{t[:30]!r}" for n, t, _ in CASES])
def test_what_comes_out(name, text, expected):
    for pieces in ([text], list(text), [[token] for token in FORMATS[name][0].encode(text)]):
        assert joined(events_of(name, pieces)) == expected


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text, _ in CASES if name != "gpt_oss"])
def test_without_decoders_all_is_text(name, text):
    events = joined(events_of(name, [text], reasoning=False, tool_use=False))
    assert events == [*([Text(text)] if text else []), Done(text)]


def test_gpt_oss_without_decoders_keeps_what_nobody_asked_for():
    events = events_of("gpt_oss", [HARMONY], reasoning=False, tool_use=False)
    assert events[-1].text == (
        "<|channel|>analysis<|message|>So.<|end|>I look."
        '<|start|>assistant<|channel|>commentary to=functions.weigh <|constrain|>json<|message|>{"what": "flour"}'
    )


PARTS = {
    "qwen3": [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        QWEN_CALL,
        '{"',
        "{",
        '"',
        "\\",
        "\n",
        "<",
        "<think",
    ],
    "olmo3": ["<think>", "</think>", "<function_calls>", "</function_calls>", "a(b=1)", "{}", '"', "\n", "</"],
    "r1": [
        "<think>",
        "</think>",
        "\n",
        R1_CALL,
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        " ",
    ],
    "llama3": ["{", "}", '{"name": "a"}', '"', "\\", "\n", " ", "<|python_tag|>", "<|python"],
    "mistral3": ["[TOOL_CALLS]", "a[ARGS]{}", "[ARGS]", "{", "}", '"', "[TOOL"],
    "gpt_oss": [
        "<|channel|>",
        "<|message|>",
        "<|end|>",
        "<|start|>",
        "analysis",
        "final",
        "commentary to=functions.a",
        "{}",
        '"',
        "<|",
    ],
}


@pytest.mark.parametrize("name", PARTS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_events_do_not_depend_on_the_cuts(name, data):
    """However the ids are cut into feeds, characters split and markers split: the same events."""
    ours, chat = FORMATS[name]
    parts = data.draw(st.lists(st.sampled_from([*PARTS[name], "é", "🥖", "word "]), max_size=14))
    text = "".join(parts)
    raw = text.encode()
    # Ids that spell the text in other ways than the tokenizer would: byte by byte, or its own.
    spelled = data.draw(st.sampled_from(["own", "bytes"]))
    ids = ours.encode(text) if spelled == "own" else [_byte(ours, value) for value in raw]
    reasoning, tool_use = data.draw(st.booleans()), data.draw(st.booleans())
    decoder = chat.decoder(reasoning=reasoning, tool_use=tool_use)
    whole = decoder.feed(ours.encode(text)) + decoder.finish()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    parted = []
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        parted += decoder.feed(ids[start:end])
    parted += decoder.finish()
    assert joined(parted) == joined(whole)
    assert [event for event in whole if isinstance(event, Done)] == whole[-1:]
    assert whole[-1].text == "".join(event.text for event in whole if isinstance(event, Text))
    assert all(event.text for event in whole if isinstance(event, Text))


def _byte(ours, value):
    from bakehouse.engine.tokenizer.alphabet import BYTE_CHARACTERS

    return ours._fast.token_to_id(BYTE_CHARACTERS[value])


@pytest.mark.parametrize("name", ["qwen3", "olmo3", "mistral3"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_is_lost(name, data):
    """Text, reasoning and unread calls together hold every word that is no marker and in no call that was read."""
    words = data.draw(
        st.lists(st.sampled_from(["<think>", "</think>", "<tool_call>", "w1 ", "w2 ", "{", "é"]), max_size=12)
    )
    events = events_of(name, ["".join(words)])
    out = "".join(event.text for event in events if isinstance(event, Text | Thinking))
    for word in ("w1 ", "w2 ", "é"):
        assert out.count(word) == words.count(word)


@given(text=st.text(max_size=12), extra=st.integers(0, 255))
@example(text="🥖", extra=0xF0)
@settings(max_examples=60, deadline=None)
def test_no_event_breaks_a_character(text, extra):
    """Byte by byte, with a lone byte at the end: U+FFFD comes only for that byte, and only at the end."""
    _, chat = FORMATS["dummy"]
    decoder = chat.decoder()
    events = [event for byte in text.encode() for event in decoder.feed([byte])]
    assert "".join(event.text for event in events) == text
    events = decoder.feed([extra]) + decoder.finish()
    assert events[-1].text == text + bytes([extra]).decode("utf-8", "replace")


@pytest.mark.parametrize("name", FORMATS)
def test_stop_ids_add_no_text(name):
    ours, chat = FORMATS[name]
    decoder = chat.decoder()
    events = [*decoder.feed([*ours.encode("ok"), *chat.stop_tokens]), *decoder.finish()]
    assert joined(events) == [Text("ok"), Done("ok")]


def test_reset_forgets():
    ours, chat = FORMATS["qwen3"]
    decoder = chat.decoder(reasoning=True, tool_use=True)
    decoder.feed(ours.encode("a<think>b" + QWEN_CALL[:20]))
    decoder.reset()
    assert joined(decoder.feed(ours.encode("c")) + decoder.finish()) == [Text("c"), Done("c")]


def test_a_space_at_the_start_is_the_tokenizers():
    ours, chat = FORMATS["llama2"]
    decoder = chat.decoder()
    events = [event for token in ours.encode("The baker heats") for event in decoder.feed([token])]
    assert "".join(event.text for event in events) == "The baker heats"


@pytest.mark.parametrize("body", ["word ", '{"', "<think>x</think>", "<", QWEN_CALL])
def test_time_grows_with_the_tokens_only(body):
    """Twice the tokens, twice the work: counted in characters that the machine looks at, not in seconds."""
    ours, chat = FORMATS["qwen3"]

    def looked_at(repeat):
        decoder = chat.decoder(reasoning=True, tool_use=True)
        total = 0
        for token in ours.encode("<tool_call>{" + body * repeat):
            decoder.feed([token])
            total += len(decoder._pending._text) + 1
        return total

    assert looked_at(400) < 2.5 * looked_at(200)
