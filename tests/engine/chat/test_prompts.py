"""Prompt ids: what transformers' apply_chat_template gives, wherever the template can say."""

import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine.chat import jinja
from bakehouse.engine.chat.base import EMPTY, Turn
from bakehouse.engine.chat.create import create_format
from bakehouse.engine.chat.format import ChatOptions
from bakehouse.engine.chat.tools import declaration
from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.tokenizer.bytes import ByteTokenizer
from bakehouse.engine.tokenizer.hf import HFTokenizer
from tests.engine import tokenizers as tiny

DATE = datetime(2024, 7, 26)
SYSTEM = Turn("system", "Speak like a baker.")
USER = Turn("user", "Where is the levain?")
ANSWER = Turn("assistant", "In the cellar.")
CUE = Turn("cue", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of each family: our tokenizer, and transformers' own of the same folder."""
    from transformers import PreTrainedTokenizerFast

    result = {}
    for name in tiny.FAMILIES:
        folder = tiny.save(tmp_path_factory.mktemp(name), name)
        result[name] = (HFTokenizer.from_folder(folder), PreTrainedTokenizerFast.from_pretrained(str(folder)))
    return result


def format_of(made, name, thinking=True):
    return create_format(made[name][0], tiny.FAMILIES[name].architecture, None, ChatOptions(thinking, DATE))


def ids_of(chat, *turns, transcript=EMPTY):
    ids = []
    for turn in turns:
        new, transcript = chat.add(transcript, turn)
        ids += new
    return ids


def reference(monkeypatch, made, name, turns, thinking=True):
    """transformers' ids for the same conversation on the same day."""
    from transformers.utils import chat_template_utils

    class Fixed(datetime):
        @classmethod
        def now(cls, tz=None):
            return DATE

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns if turn.role != "cue"]
    return made[name][1].apply_chat_template(
        messages,
        add_generation_prompt=turns[-1].role == "cue",
        enable_thinking=thinking,
        tokenize=True,
        return_dict=False,
    )


FIRST_TURNS = {
    "user": (USER,),
    "user, cue": (USER, CUE),
    "system, user": (SYSTEM, USER),
    "system, user, cue": (SYSTEM, USER, CUE),
    "text that runs into the delimiters": (Turn("system", "\n be\n"), Turn("user", "\n\n  Grüße 🥖\n"), CUE),
}


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("turns", FIRST_TURNS.values(), ids=FIRST_TURNS)
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_first_turns_are_the_templates(monkeypatch, made, name, turns, thinking):
    chat = format_of(made, name, thinking)
    assert chat.family == name
    assert ids_of(chat, *turns) == reference(monkeypatch, made, name, turns, thinking)


LATER = (SYSTEM, USER, ANSWER, Turn("user", "And the flour?"), CUE)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_replayed_conversations_are_the_templates(monkeypatch, made, name):
    assert ids_of(format_of(made, name), *LATER) == reference(monkeypatch, made, name, LATER)


#: Their templates write history otherwise than it was generated: without the reasoning that the cue opened (olmo3, r1),
#: with spaces around the words (llama2), without the header of the channel (gpt_oss).
REWRITTEN = {"olmo3", "r1", "llama2", "gpt_oss"}


@pytest.mark.parametrize("name", [name for name in tiny.FAMILIES if name not in REWRITTEN])
def test_generated_turns_go_on_as_the_template_has_it(monkeypatch, made, name):
    """After a natural end the context holds what the template gives for the conversation so far."""
    chat, ours = format_of(made, name), made[name][0]
    ids, transcript = [], EMPTY
    for turn in (USER, CUE):
        new, transcript = chat.add(transcript, turn)
        ids += new
    said = [*ours.encode(ANSWER.text), chat.turn_end]
    ids += said
    for token in said:
        transcript = transcript.wrote([token])
    ids += ids_of(chat, Turn("user", "Thanks"), CUE, transcript=transcript)
    assert ids == reference(monkeypatch, made, name, (USER, ANSWER, Turn("user", "Thanks"), CUE))


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_turn_ends_once_whatever_ended_it(made, name):
    """A generated end and a sealed one are followed by the same, and the next turn's ids do not repeat the end."""
    chat, ours = format_of(made, name), made[name][0]
    transcript = chat.add(chat.add(EMPTY, USER)[1], CUE)[1].wrote([*ours.encode("ok"), chat.turn_end])
    after, _ = chat.add(transcript, Turn("user", "more"))
    text = ours.decode(after)
    assert "more" in text
    assert not text.startswith(ours.decode([chat.turn_end]))


def test_qwen3_by_hand(made):
    """The table, without any template: what a program that knows ChatML expects."""
    chat, ours = _plain("qwen3"), HFTokenizer(tiny.build("qwen3"))
    assert ours.decode(ids_of(chat, SYSTEM, USER, CUE)) == (
        "<|im_start|>system\nSpeak like a baker.<|im_end|>\n<|im_start|>user\nWhere is the levain?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    thought = Turn("assistant", "<think>\nhm</think>\n\nIn the cellar.")
    assert ours.decode(ids_of(chat, thought)) == "<|im_start|>assistant\nIn the cellar.<|im_end|>\n"
    off = chat.with_options(ChatOptions(enable_thinking=False))
    assert ours.decode(ids_of(off, CUE)) == "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _plain(name):
    """A format without a template, as of a folder that brings none."""
    family = tiny.FAMILIES[name]
    config = {"bos_token": family.bos, "eos_token": family.eos}
    return create_format(HFTokenizer(tiny.build(name), config=config), family.architecture)


TABLE = {
    "qwen2": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>assistant\n",
    "olmo3": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>assistant\n<think>",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "A<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama2": "<s> [INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s>",
    "mistral3": "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>",
    "gemma": "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    "<start_of_turn>model\n",
    "r1": "<｜begin▁of▁sentence｜>S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜Assistant｜>",
    "gpt_oss": "<|start|>developer<|message|>S<|end|><|start|>user<|message|>U<|end|>"
    "<|start|>assistant<|channel|>final<|message|>A<|end|><|start|>assistant",
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_each_family(name):
    chat = _plain(name)
    ids = ids_of(chat, Turn("system", "S"), Turn("user", "U"), Turn("assistant", "A"), CUE)
    assert HFTokenizer(tiny.build(name)).decode(ids) == TABLE[name]


def test_delimiters_and_text_share_no_token_in_the_table():
    chat, ours = _plain("qwen3"), HFTokenizer(tiny.build("qwen3"))
    ids = ids_of(chat, Turn("user", "\n\nhi"))
    header = ours.encode("<|im_start|>user\n")
    assert ids == [*header, *ours.encode("\n\nhi"), *ours.encode("<|im_end|>\n")]


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("templated", [True, False])
def test_users_cannot_write_special_tokens(made, name, templated):
    chat = format_of(made, name) if templated else _plain(name)
    ours = made[name][0]
    harmless, bad = ids_of(chat, USER), ids_of(chat, Turn("user", "".join(tiny.FAMILIES[name].special) + "\U000f0000"))
    assert [t for t in bad if t in ours.special_ids] == [t for t in harmless if t in ours.special_ids]
    assert "".join(tiny.FAMILIES[name].special) in ours.decode(bad)


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("templated", [True, False])
def test_empty_texts_are_turns_too(made, name, templated):
    chat = format_of(made, name) if templated else _plain(name)
    turns = (Turn("system", ""), Turn("user", ""), Turn("assistant", ""), Turn("user", ""), CUE)
    assert len(ids_of(chat, *turns)) > len(ids_of(chat, *turns[:2])) > 0


def test_a_replayed_call_keeps_its_marks():
    chat, ours = _plain("mistral3"), HFTokenizer(tiny.build("mistral3"))
    ids = ids_of(chat, USER, Turn("assistant", "[TOOL_CALLS]weigh[ARGS]{}"))
    assert ours.id_of("[TOOL_CALLS]") in ids


@pytest.mark.parametrize("name", ["gemma", "llama2"])
@pytest.mark.parametrize("templated", [True, False])
def test_a_held_system_text_is_never_lost(made, name, templated):
    chat = format_of(made, name) if templated else _plain(name)
    ours = made[name][0]
    ids, transcript = chat.add(EMPTY, SYSTEM)
    assert ids == []
    assert SYSTEM.text in ours.decode(chat.add(transcript, USER)[0])
    assert SYSTEM.text in ours.decode(chat.add(transcript, CUE)[0])
    _, twice = chat.add(transcript, Turn("system", "And briefly."))
    both = ours.decode(chat.add(twice, USER)[0])
    assert SYSTEM.text in both
    assert "And briefly." in both


@pytest.mark.parametrize("name", [n for n, f in tiny.FAMILIES.items() if f.bos and n != "gpt_oss"])
@pytest.mark.parametrize("templated", [True, False])
def test_a_context_begins_once(made, name, templated):
    chat = format_of(made, name) if templated else _plain(name)
    bos = made[name][0].id_of(tiny.FAMILIES[name].bos)
    assert ids_of(chat, USER)[0] == bos
    filled = EMPTY.wrote(made[name][0].encode("Once upon a time"))
    assert bos not in ids_of(chat, USER, transcript=filled)


TOOL = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "weigh",
            "description": "Weighs.",
            "parameters": {
                "type": "object",
                "properties": {"what": {"type": "string"}, "unit": {"enum": ["g", "kg"]}},
                "required": ["what"],
            },
        },
    }
)
CALLERS = {"qwen3", "qwen2", "olmo3", "llama3", "mistral3", "r1", "gpt_oss"}


@pytest.mark.parametrize("name", sorted(CALLERS))
@pytest.mark.parametrize("templated", [True, False])
def test_tools_are_declared_and_answered(made, name, templated):
    chat = format_of(made, name) if templated else _plain(name)
    ours = made[name][0]
    for schema in (TOOL, '{"name": "weigh", "parameters": {"type": "object", "properties": {"what": {}}}}'):
        ids, transcript = chat.add(EMPTY, declaration([schema]))
        text = ours.decode(ids)
        assert "weigh" in text
        assert "what" in text
        more = ours.decode(ids_of(chat, USER, Turn("tool", "500 g", "weigh"), CUE, transcript=transcript))
        assert USER.text in more
        assert "500 g" in more
        if tiny.FAMILIES[name].bos and name != "gpt_oss":
            assert text.count(tiny.FAMILIES[name].bos) == 1
            assert tiny.FAMILIES[name].bos not in more


def test_the_typescript_of_gpt_oss():
    text = HFTokenizer(tiny.build("gpt_oss")).decode(_plain("gpt_oss").add(EMPTY, declaration([TOOL]))[0])
    assert (
        'namespace functions {\n\n// Weighs.\ntype weigh = (_: {\nwhat: string,\nunit?: "g" | "kg",\n}) => any;\n\n'
        "} // namespace functions" in text
    )


@pytest.mark.parametrize("name", ["gemma", "llama2"])
def test_families_without_tools_say_so(made, name):
    with pytest.raises(BadRequest, match=name):
        format_of(made, name).add(EMPTY, declaration([TOOL]))
    with pytest.raises(BadRequest, match=name):
        format_of(made, name).add(EMPTY, Turn("tool", "1", "weigh"))


@pytest.mark.parametrize(
    ("schemas", "what"),
    [
        (["{}"], r"tools\[0\]: a tool needs a name"),
        ([TOOL, "{"], r"tools\[1\]: not JSON"),
        ([TOOL, "[]"], r"tools\[1\]: a tool is a JSON object"),
        (['{"function": {"name": 3}}'], r"tools\[0\]"),
    ],
)
def test_bad_declarations_name_the_tool(schemas, what):
    with pytest.raises(BadRequest, match=what):
        declaration(schemas)


def test_unknown_roles_are_refused(made):
    with pytest.raises(BadRequest, match="role"):
        format_of(made, "qwen3").add(EMPTY, Turn("developer", "x"))


def test_a_template_that_is_not_jinja_is_refused():
    ours = HFTokenizer(tiny.build("qwen3"), chat_templates={"default": "{% if %}"})
    with pytest.raises(ModelRefused, match="line 1"):
        create_format(ours, "Qwen3ForCausalLM")


def test_a_tokenizer_without_any_end_is_refused():
    with pytest.raises(ModelRefused, match="ends a turn"):
        create_format(HFTokenizer(tiny.byte_level()), "LlamaForCausalLM")


def test_the_date_of_tomorrow_is_tomorrows(monkeypatch, made):
    """Without a fixed date the clock counts, also for a conversation that was rendered before."""
    today = [datetime(2024, 7, 26)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return today[0]

    monkeypatch.setattr(jinja, "datetime", Clock)
    chat = create_format(made["gpt_oss"][0], "GptOssForCausalLM")
    assert "2024-07-26" in made["gpt_oss"][0].decode(chat.add(EMPTY, USER)[0])
    today[0] = datetime(2024, 7, 27)
    assert "2024-07-27" in made["gpt_oss"][0].decode(chat.add(EMPTY, USER)[0])


def test_a_template_that_refuses_leaves_the_turn_to_the_table(made):
    chat, ours = format_of(made, "gemma"), made["gemma"][0]
    again = ids_of(chat, USER, Turn("user", "Well?"))
    assert ours.decode(again).endswith("<start_of_turn>user\nWell?<end_of_turn>\n")


def test_families_are_found():
    def family(name, architecture):
        return create_format(HFTokenizer(tiny.build(name), config={"eos_token": "</s>"}), architecture).family

    assert family("r1", "LlamaForCausalLM") == "r1"  # a distilled model
    assert family("llama3", "SomethingForCausalLM") == "llama3"
    assert family("llama3", "llama") == "llama3"
    assert family("qwen3", "SomethingForCausalLM") == "qwen3"
    assert family("olmo3", "SomethingForCausalLM") == "chatml"
    assert family("mistral3", "MistralForCausalLM") == "mistral3"
    assert create_format(ByteTokenizer(), "dummy").family == "qwen3"


def test_stop_tokens():
    chat = _plain("qwen3")
    ours = HFTokenizer(tiny.build("qwen3"))
    names = [ours.decode([token]) for token in chat.stop_tokens]
    assert names == ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]
    assert ours.decode([chat.turn_end]) == "<|im_end|>"
    extra = ours.id_of("<tool_call>")
    more = create_format(ours, "Qwen3ForCausalLM", {"eos_token_id": [chat.turn_end, extra, 10**6]})
    assert more.stop_tokens == (*chat.stop_tokens, extra)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=30))
def test_any_users_text_comes_back_out_of_the_ids(text):
    ids, _ = create_format(ByteTokenizer(), "dummy").add(EMPTY, Turn("user", text))
    assert ByteTokenizer().decode(ids) == f"<|im_start|>user\n{text}<|im_end|>\n"
