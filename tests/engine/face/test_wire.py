"""Frames and messages: what is written is read again, what is wrong is refused, and names do not change unnoticed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine import wire
from bakehouse.engine.errors import BY_CODE, BadRequest, EngineError, LimitExceeded
from bakehouse.engine.params import (
    Chunk,
    Distribution,
    Done,
    Embedding,
    Event,
    FinishReason,
    ForwardOutput,
    ForwardRequest,
    GenerateRequest,
    SampleAt,
    Sampler,
    Text,
    Thinking,
    ThinkingDone,
    TokenLogprobs,
    ToolCall,
    ToolCallStart,
)
from bakehouse.engine.wire import Call, Cancel, FrameReader, Hello, Open, WireError

ids = st.integers(0, 2**31 - 1)
texts = st.text(max_size=20)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Text, texts),
    st.builds(Thinking, texts),
    st.builds(ThinkingDone, texts),
    st.builds(ToolCallStart),
    st.builds(ToolCall, texts, texts),
    st.builds(Done, texts),
)
logs = st.floats(max_value=0, allow_nan=False)
logprobs = st.builds(TokenLogprobs, ids, logs, st.lists(st.tuples(ids, logs), max_size=3).map(tuple))
chunks = st.builds(
    Chunk,
    st.lists(ids, max_size=9).map(tuple),
    st.lists(events, max_size=4).map(tuple),
    st.lists(logprobs, max_size=3).map(tuple),
    st.sampled_from([None, *FinishReason]),
)
results = st.one_of(
    ids,
    st.builds(Embedding, st.binary(max_size=64)),
    st.lists(ids, max_size=5).map(lambda found: Distribution(array("I", found), array("f", [0.5] * len(found)))),
)
outputs = st.builds(
    ForwardOutput,
    st.lists(results, max_size=5).map(tuple),
    st.lists(ids, max_size=3).map(tuple),
    logprobs=st.lists(logprobs, max_size=3).map(tuple),
)


@settings(max_examples=60)
@given(st.lists(st.one_of(chunks, outputs), max_size=4), st.integers(1, 70))
def test_results_arrive_as_they_were_in_any_pieces(values: list[Any], piece: int) -> None:
    sent = b"".join(wire.dump([["c", number, value]]) for number, value in enumerate(values))
    reader, frames = FrameReader(), []
    for start in range(0, len(sent), piece):
        frames += reader.feed(sent[start : start + piece])
    got = [wire.load_value(frame.body[0][2], frame.tail) for frame in frames]
    assert got == values
    for before, after in zip(values, got, strict=True):
        assert type(before) is type(after)
        if isinstance(after, Chunk) and after.finish:
            assert isinstance(after.finish, FinishReason)


@given(
    st.builds(
        GenerateRequest,
        context=st.integers(1, 99),
        sampler=st.builds(Sampler, seed=st.integers(-(2**63), 2**64 - 1), temperature=st.floats(0, 9)),
        max_tokens=st.none() | st.integers(0, 9),
        logit_mask=st.none() | st.lists(st.integers(0, 9)).map(tuple),
    )
)
def test_requests_arrive_as_they_were(request: GenerateRequest) -> None:
    assert _arguments("generate", {"request": request}) == {"request": request}


def test_a_forward_request_arrives_whole() -> None:
    request = ForwardRequest(
        context=3,
        tokens=(1, 2, 3),
        positions=(4, 5, 6),
        masks=((0, 1), (0, 2), (1, 2), (0, 4)),
        logit_mask=(1, 5),
        samplers=(SampleAt((0, 2), Sampler(seed=4)), SampleAt((2,), Sampler())),
        draft_tokens=(9,),
        draft_positions=(7,),
        speculative_output=False,
        adapter=2,
        zo_seed=-(2**63),
        logprobs=4,
        timeout=1.5,
    )
    assert _arguments("forward", {"request": request}) == {"request": request}


def _arguments(method: str, args: dict[str, Any]) -> dict[str, Any]:
    (frame,) = FrameReader().feed(wire.dump(wire.message_body(Call(1, 1, method, args, []))))
    message = wire.read_message(frame.body)
    assert isinstance(message, Call)
    return wire.read_arguments(message)


@pytest.mark.parametrize(
    ("method", "args", "told"),
    [
        ("forward", {"request": {"tokens": []}}, "tokens"),
        ("forward", {"request": {"tokens": [1], "speed": 9}}, "speed"),
        ("forward", {"request": {"tokens": [1], "positions": [-1]}}, "positions"),
        ("forward", {"request": {"tokens": ["x"]}}, "tokens"),
        ("forward", {}, "request"),
        ("forward", {"request": {"tokens": [1]}, "more": 1}, "more"),
        ("generate", {"request": {"context": 1, "sampler": {"kind": "best"}}}, "kind"),
        ("update_zo", {"adapter": 1, "scores": [None], "seeds": [1]}, "scores"),
        ("__init__", {}, "method"),
        ("_done", {}, "method"),
        ("open", {}, "method"),
    ],
)
def test_arguments_that_are_wrong_are_named(method: str, args: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        wire.read_arguments(Call(1, 1, method, args, []))


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"t": "shout"},
        {"t": "hello"},
        {"t": "hello", "version": "1"},
        {"t": "hello", "version": True},
        {"t": "hello", "version": 1, "more": 2},
        {"t": "call", "id": 1, "session": 1, "method": "flush", "args": [], "taken": []},
        {"t": "call", "id": 1, "session": 1, "method": "flush", "args": {}, "taken": [[1, "2"]]},
        {"t": ["hello"], "version": 1},
    ],
)
def test_messages_that_are_none_are_refused(body: Any) -> None:
    with pytest.raises(WireError):
        wire.read_message(body)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", wire.MAX_FRAME, 1),
        struct.pack(">II", 2**32 - 1, 2**32 - 1),
        struct.pack(">II", 3, 0) + b"{a}",
        struct.pack(">II", 2, 0) + b"\xff\xfe",
    ],
)
def test_frames_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        FrameReader().feed(data)


@pytest.mark.parametrize(
    "value",
    [
        {"$": "Chunk", "tokens": [1], "colour": 1},
        {"$": "Nothing"},
        {"$": "bytes", "at": [0, 99]},
        {"$": "bytes", "at": [-1, 1]},
        {"$": "array", "of": "d", "at": [0, 8]},
        {"$": "array", "of": "I", "at": [0, 3]},
    ],
)
def test_values_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(WireError):
        wire.load_value(value, memoryview(b"12345678"))


def test_a_frame_is_never_larger_than_may_be_read() -> None:
    with pytest.raises(LimitExceeded, match="ask for less"):
        wire.dump([["r", 1, Embedding(bytes(wire.MAX_FRAME))]])


def test_errors_keep_their_kind_text_and_field() -> None:
    for code, kind in BY_CODE.items():
        _, number, *told = wire.error_item(4, kind("no", field="here"))
        assert number == 4
        found = wire.read_error(*told)
        assert (type(found), found.code, found.detail, found.field) == (kind, code, "no", "here")
    assert type(wire.read_error("of_tomorrow", "x", None)) is EngineError


def test_the_form_of_messages_is_this() -> None:
    """A change here is a change of the protocol: raise `wire.VERSION` with it."""
    request = GenerateRequest(context=2, sampler=Sampler("top_p", 0.5, top_p=0.9), max_tokens=5)
    told = [
        wire.message_body(message)
        for message in (
            Hello(1),
            Open(1, 1, "m", "ada", "p"),
            Call(2, 1, "generate", {"request": request}, [(9, 3)]),
            Cancel(2, 7),
        )
    ]
    told.append(["r", 2, None])
    told.append(["c", 2, Chunk((5,), (Text("a"), Done("ab")), (TokenLogprobs(5, float("-inf")),), FinishReason.STOP)])
    told.append(["r", 3, ForwardOutput((4, Embedding(b"ab"), Distribution(array("I", [1]), array("f", [1.0]))))])
    (frame,) = FrameReader().feed(wire.dump(told))
    assert wire.VERSION == 1
    assert frame.body == json.loads(
        """[
  {"t": "hello", "version": 1},
  {"t": "open", "id": 1, "session": 1, "model": "m", "owner": "ada", "program": "p"},
  {"t": "call", "id": 2, "session": 1, "method": "generate", "taken": [[9, 3]],
   "args": {"request": {"context": 2, "sampler": {"kind": "top_p", "temperature": 0.5, "top_p": 0.9},
                        "max_tokens": 5, "stop": {}}}},
  {"t": "cancel", "id": 2, "taken": 7},
  ["r", 2, null],
  ["c", 2, {"$": "Chunk", "tokens": [5], "events": [{"$": "Text", "text": "a"}, {"$": "Done", "text": "ab"}],
            "logprobs": [{"$": "TokenLogprobs", "token": 5, "logprob": "-inf", "top": []}], "finish": "stop"}],
  ["r", 3, {"$": "ForwardOutput", "results": [4, {"$": "Embedding", "data": {"$": "bytes", "at": [0, 2]}},
     {"$": "Distribution", "ids": {"$": "array", "of": "I", "at": [2, 4]},
      "probs": {"$": "array", "of": "f", "at": [6, 4]}}]}]
]"""
    )
    assert bytes(frame.tail) == b"ab" + struct.pack("<If", 1, 1.0)


def test_the_far_side_loads_no_engine() -> None:
    """Platforms use these without the extra `engine`."""
    code = (
        "import sys; import bakehouse.engine.remote, bakehouse.engine.supervise, bakehouse.engine.check; "
        "print([name for name in ('torch', 'numpy', 'transformers', 'llguidance', 'tokenizers', 'jinja2') "
        "if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
