"""The byte tokenizer: every text there and back, and its special tokens."""

from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.tokenizer.bytes import IM_END, IM_START, SPECIALS, VOCAB_SIZE, ByteTokenizer

TOKENIZER = ByteTokenizer()
texts = st.lists(st.one_of(st.text(), st.sampled_from(SPECIALS))).map("".join)


@given(texts)
def test_every_text_comes_back(text):
    ids = TOKENIZER.encode(text)
    assert all(0 <= token < VOCAB_SIZE for token in ids)
    assert TOKENIZER.decode(ids) == text
    assert b"".join(map(TOKENIZER.token_bytes, ids)) == text.encode()


@given(texts)
def test_typed_text_makes_no_turn_marks(text):
    ids = TOKENIZER.encode_text(text)
    assert not TOKENIZER.special_ids & set(ids)
    assert TOKENIZER.decode(ids) == text


def test_special_tokens_are_single_ids():
    assert TOKENIZER.encode("<|im_start|>a<|im_end|><think>") == [IM_START, ord("a"), IM_END, 259]
    assert [TOKENIZER.id_of(name) for name in SPECIALS] == list(range(256, VOCAB_SIZE))
    assert TOKENIZER.id_of("a") == ord("a")
    assert TOKENIZER.id_of("ab") is TOKENIZER.id_of("é") is TOKENIZER.id_of("") is None


def test_what_is_no_text_becomes_replacement_characters():
    assert TOKENIZER.decode([0xC3, 0x28, 9999, -1]) == "\ufffd("
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a\ufffdb"
    assert TOKENIZER.token_bytes(VOCAB_SIZE) == b""


def test_the_vocabulary_is_whole():
    ids, pieces = TOKENIZER.vocabulary
    assert ids == list(range(VOCAB_SIZE))
    assert pieces[65] == b"A"
    assert pieces[IM_END] == b"<|im_end|>"
