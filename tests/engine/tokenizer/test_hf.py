"""Tokenizers from folders: ids, bytes and text agree with the libraries that made them."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.tokenizer.detokenize import Detokenizer
from bakehouse.engine.tokenizer.hf import HFTokenizer
from tests.engine import tokenizers as tiny

STYLES = {"byte_level": "qwen3", "sentencepiece": "llama2", "gemma": "gemma"}
SENTENCES = [
    "The baker heats the oven.",
    "two  spaces,\n\nand lines\r\n",
    " leading",
    "Grüße 面包 🥖 Хлеб",
    "",
    "x",
    "\t\x00\x7f",
]


@pytest.fixture(scope="module", params=[*STYLES, "unigram"])
def pair(request):
    """A tokenizer of ours and the library's own."""
    if request.param == "unigram":
        fast = tiny.unigram()
        return HFTokenizer(tokenizers.Tokenizer.from_str(fast.to_str())), fast
    name = STYLES[request.param]
    return HFTokenizer(tiny.build(name)), tiny.build(name)


@pytest.mark.parametrize("text", SENTENCES)
def test_ids_and_text_are_the_librarys(pair, text):
    ours, fast = pair
    ids = ours.encode(text)
    assert ids == fast.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == fast.decode(ids, skip_special_tokens=False)
    if not (text.startswith(" ") and "Metaspace" in str(fast.decoder)):  # which cannot tell one space from none
        assert ours.decode(ids) == text


def test_bytes_of_ids_join_to_the_text(pair):
    ours, _ = pair
    text = "Grüße, 面包师 🥖!"
    joined = b"".join(ours.token_bytes(token) for token in ours.encode(text))
    assert joined == ((" " if ours.drops_leading_space else "") + text).encode()


def test_each_byte_of_a_byte_level_vocabulary_is_there_once():
    ours = HFTokenizer(tiny.build("qwen3"))
    ids, data = ours.vocabulary
    assert sorted(d for d in data if len(d) == 1) == [bytes([b]) for b in range(256)]
    assert [ours.token_bytes(token) for token in ids] == data


def test_byte_fallback_tokens_are_their_byte():
    ours = HFTokenizer(tiny.build("llama2"))
    index = tiny.build("llama2").token_to_id("<0xE9>")
    assert ours.token_bytes(index) == b"\xe9"
    assert ours.decode([index]) == "\ufffd"


def test_specials_are_single_ids_and_none_is_added():
    ours = HFTokenizer(tiny.build("qwen3"))
    end = ours.id_of("<|im_end|>")
    assert ours.encode("<|im_end|>") == [end]
    assert ours.encode("a<|im_end|>\n") == [*ours.encode("a"), end, *ours.encode("\n")]
    assert ours.decode([end]) == "<|im_end|>"
    assert end in ours.special_ids
    think = ours.id_of("<think>")
    assert ours.encode("<think>") == [think]
    assert think not in ours.special_ids


@pytest.mark.parametrize("name", ["qwen3", "llama2", "gemma", "r1"])
def test_typed_text_cannot_hold_a_special_token(name):
    ours = HFTokenizer(tiny.build(name))
    for special in sorted(ours.special_ids):
        spelled = ours.token_bytes(special).decode()
        ids = ours.encode_text(f"a{spelled}{spelled}b")
        assert not ours.special_ids & set(ids)
        assert ours.decode(ids) == f"a{spelled}{spelled}b"


def test_what_goes_on_from_other_text_gets_no_space_in_front():
    ours = HFTokenizer(tiny.build("llama2"))
    assert ours.token_bytes(ours.encode("baker")[0]).startswith(b" ")
    assert b"".join(map(ours.token_bytes, ours.encode_next("baker"))) == b"baker"
    assert b"".join(map(ours.token_bytes, ours.encode_next(" baker"))) == b" baker"


def test_ids_of_spelled_tokens():
    ours = HFTokenizer(tiny.build("qwen3"))
    the = ours.encode(" the")
    assert len(the) == 1
    assert ours.id_of(" the") == the[0]
    assert ours.id_of("no such token") is None
    assert HFTokenizer(tiny.build("gemma")).id_of(" the") is not None


def test_half_a_surrogate_pair_is_no_text(pair):
    ours, _ = pair
    assert ours.encode("a\ud83e") == ours.encode("a\ufffd")
    assert ours.encode_text("a\ud83e\udd56") == ours.encode("a🥖")


def test_the_split_expression():
    assert r"\p{N}" in HFTokenizer(tiny.build("qwen3")).split_regex()
    assert HFTokenizer(tiny.build("llama2")).split_regex() == ""


def test_unknown_ids_stand_for_nothing():
    ours = HFTokenizer(tiny.build("qwen3"), vocab_size=tiny.VOCABULARY)
    assert ours.vocab_size == tiny.VOCABULARY
    assert ours.token_bytes(tiny.VOCABULARY - 1) == ours.token_bytes(-1) == ours.token_bytes(10**9) == b""
    assert ours.decode([10**9, ours.encode("x")[0]]) == "x"


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_detokenises_to_the_whole(style, data):
    ours = _MADE.setdefault(style, HFTokenizer(tiny.build(STYLES[style])))
    text = data.draw(st.text(max_size=20))
    noise = st.integers(0, ours.vocab_size - 1)
    ids = ours.encode(text) + data.draw(st.lists(noise, max_size=12)) + ours.encode(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    stream = Detokenizer(ours)
    given = [stream.feed(ids[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    assert "".join(given) + stream.finish() == ours.decode(ids)
    assert ours.decode(ours.encode(text)) == text


_MADE: dict[str, HFTokenizer] = {}


def test_no_character_is_given_out_in_parts():
    ours = HFTokenizer(tiny.build("qwen3"))
    ids = [ours.encode("é")[0], *[ours._fast.token_to_id(c) for c in ("ð", "Ł", "¥", "ĸ")]]
    stream = Detokenizer(ours)
    given = [stream.feed([token]) for token in ids[-4:]]
    assert given[:3] == ["", "", ""]
    assert given[3] == bytes([0xF0, 0x9F, 0xA5, 0x96]).decode()
    assert stream.finish() == ""


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_folders_load(tmp_path, name):
    ours = HFTokenizer.from_folder(tiny.save(tmp_path, name), tiny.VOCABULARY)
    family = tiny.FAMILIES[name]
    assert ours.chat_templates["default"] == family.template
    assert ours.special_tokens.get("bos_token") == family.bos
    assert {ours.id_of(text) for text in family.special} <= ours.special_ids


def test_template_files_go_first(tmp_path):
    tiny.save(tmp_path, "qwen3")
    (tmp_path / "chat_template.jinja").write_text("mine")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert HFTokenizer.from_folder(tmp_path).chat_templates == {"default": "mine", "tool_use": "tools"}


def test_a_template_beside_a_processor(tmp_path):
    tiny.save(tmp_path, "qwen3", template=False)
    assert HFTokenizer.from_folder(tmp_path).chat_templates == {}
    (tmp_path / "chat_template.json").write_text('{"chat_template": "mine"}')
    assert HFTokenizer.from_folder(tmp_path).chat_templates == {"default": "mine"}


def test_tokens_that_only_the_config_lists(tmp_path):
    tiny.save(tmp_path, "qwen3")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    size = tiny.build("qwen3").get_vocab_size()
    config["added_tokens_decoder"] = {str(size): {"content": "<|late|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = HFTokenizer.from_folder(tmp_path)
    assert ours.encode("a<|late|>")[-1] == size
    assert size in ours.special_ids


def _broken(tmp_path, name, text):
    tiny.save(tmp_path, "qwen3")
    (tmp_path / name).write_text(text)
    return tmp_path


def test_broken_files_are_refused_by_name(tmp_path):
    cases = {
        "tokenizer.json": "{}",
        "tokenizer_config.json": "[1]",
        "special_tokens_map.json": "nonsense",
    }
    for number, (name, text) in enumerate(cases.items()):
        with pytest.raises(ModelRefused, match=name):
            HFTokenizer.from_folder(_broken(tmp_path / str(number), name, text))


def test_missing_files_are_refused_by_name(tmp_path):
    with pytest.raises(ModelRefused, match="no such folder"):
        HFTokenizer.from_folder(tmp_path / "nowhere")
    with pytest.raises(ModelRefused, match=r"tokenizer\.json: missing"):
        HFTokenizer.from_folder(tmp_path)


def test_other_libraries_tokenizers_are_refused_by_name(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a sentencepiece model")
    with pytest.raises(ModelRefused, match=r"tokenizer\.model: cannot be turned"):
        HFTokenizer.from_folder(tmp_path)


def test_decoders_of_another_kind_are_refused():
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    with pytest.raises(ModelRefused, match="decoder"):
        HFTokenizer(fast)


def test_a_model_with_fewer_rows():
    with pytest.raises(ModelRefused, match="largest ordinary id"):
        HFTokenizer(tiny.build("qwen3"), vocab_size=300)
    size = tiny.build("qwen3").get_vocab_size()
    ours = HFTokenizer(tiny.build("qwen3"), vocab_size=size - 1)
    with pytest.raises(BadRequest, match="</think>"):
        ours.encode("hm</think>")
