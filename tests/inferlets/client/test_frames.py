"""Frames without a socket: both sides put together what the other one takes apart, and nothing breaks them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferlet.client import _frames as client

from bakehouse.inferlets.dialogue import frames as server

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FRAMES = st.text() | st.binary(max_size=64) | JSON.map(json.dumps)
#: Some bytes, and some that do not end where a chunk does.
SIZES = st.sampled_from([1, 7, client.CHUNK - 1, client.CHUNK, client.CHUNK + 1, 3 * client.CHUNK])


def whole(assembly: Any, frames: Sequence[str | bytes]) -> list[Any]:
    """What the server's side makes of *frames*, errors included."""
    return [found for frame in frames for found in assembly.feed(frame)]


def received(frames: Sequence[str | bytes]) -> list[Any]:
    """The same of the client's side."""
    assembly = client.Assembly()
    return [found for found in map(assembly.feed, frames) if found is not None]


@given(size=SIZES)
@settings(max_examples=20, deadline=None)
def test_bytes_survive_both_ways(size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    sent = list(server.with_bytes({"event": "file"}, data))
    assert received(sent) == [({"event": "file", "size": size}, data)]
    head = client.encode({"id": 1, "op": "file", "size": size})
    assert whole(server.Assembly(lambda _: size), [head, *client.chunks(data)]) == [
        server.Whole({"id": 1, "op": "file", "size": size}, data)
    ]


@given(frame=st.dictionaries(st.text(), JSON, max_size=5).filter(lambda frame: "size" not in frame))
def test_objects_survive_both_ways(frame: dict[str, Any]) -> None:
    assert received([server.encode(frame)]) == [(frame, b"")]
    assert whole(server.Assembly(lambda _: 0), [client.encode(frame)]) == [server.Whole(frame)]


@given(frames=st.lists(FRAMES, max_size=8))
def test_whatever_comes_is_an_answer_or_an_error_and_the_next_frame_is_read(frames: list[str | bytes]) -> None:
    room = server.Room(64)
    assembly = server.Assembly(lambda _: 32, room)
    for found in whole(assembly, frames):
        assert isinstance(found, server.Whole) or (found.code and found.detail)
    # What was left open is given up by the next text frame.
    ping = server.Whole({"id": 1, "op": "ping"})
    assert whole(assembly, ['{"id":1,"op":"ping"}'])[-1] == ping
    assert room._used == 0


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (["nonsense"], "not JSON"),
        (["[1]"], "JSON object"),
        (['{"size":-1}'], "size"),
        (['{"size":true}'], "size"),
        (['{"size":1.5}'], "size"),
        ([b"lost"], "no frame before"),
        (['{"id":3,"size":4}', "{}"], "4 bytes are missing"),
        (['{"id":3,"size":4}', b"12345"], "4 bytes were to follow"),
        (['{"id":3,"size":4}', b""], "4 bytes were to follow"),
        (['{"id":3,"size":33}'], "at most 32 bytes"),
    ],
)
def test_what_is_wrong_is_said(frames: list[str | bytes], text: str) -> None:
    assembly = server.Assembly(lambda _: 32)
    *before, last = frames
    assert whole(assembly, before) == []
    error = whole(assembly, [last])[0]
    assert isinstance(error, server.BadFrame)
    assert text in error.detail
    assert error.id == (3 if '"id":3' in str(frames[0]) else None)


def test_a_frame_in_the_middle_of_bytes_is_read_all_the_same() -> None:
    error, ping = whole(server.Assembly(lambda _: 9), ['{"id":3,"size":9}', b"12", '{"id":4}'])
    assert (error.id, error.code) == (3, "bad_frame")
    assert ping == server.Whole({"id": 4})


def test_bytes_that_may_not_follow_are_passed_over() -> None:
    assembly = server.Assembly(lambda _: 2)
    (refused,) = whole(assembly, ['{"id":1,"size":6}'])
    assert (refused.id, refused.code) == (1, "too_large")
    assert whole(assembly, [b"123", b"456", '{"id":2}']) == [server.Whole({"id": 2})]
    assert whole(assembly, [b"7"])[0].code == "bad_frame"


def test_all_clients_together_have_so_much_room() -> None:
    room = server.Room(10)
    one, two = (server.Assembly(lambda _: 10, room) for _ in range(2))
    assert whole(one, ['{"id":1,"size":8}', b"1234"]) == []
    (refused,) = whole(two, ['{"id":2,"size":3}'])
    assert (refused.id, refused.code) == (2, "limit_exceeded")
    one.close()  # its client is gone
    assert whole(two, ['{"id":3,"size":10}', b"0123456789"])[0].data == b"0123456789"
    assert whole(two, ['{"id":4,"size":10}']) == []


def test_half_a_surrogate_pair_does_not_break_the_frame() -> None:
    assert json.loads(server.encode({"text": "a\ud800b"})) == {"text": "a?b"}


def test_an_answer_that_no_frame_can_hold_is_an_error() -> None:
    found = json.loads(server.answer(7, {"value": "\x01" * (3 << 20)}))
    assert (found["id"], found["error"]["code"]) == (7, "too_large")
    assert json.loads(server.answer(7, {"value": "x" * (15 << 20)}))["id"] == 7


def test_many_small_frames_take_what_their_bytes_take() -> None:
    size = 100_000
    assembly = server.Assembly(lambda _: size)
    sent = [bytes([at % 251, at % 241]) for at in range(size // 2)]
    tracemalloc.start()
    try:
        assert whole(assembly, [f'{{"id":1,"size":{size}}}', *(bytes(bytearray(pair)) for pair in sent[:-1])]) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert whole(assembly, sent[-1:])[0].data == b"".join(sent)
