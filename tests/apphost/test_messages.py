"""The wire itself: every message as it is written, and everything that a decoder must refuse."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from bakehouse.apphost import messages as m

# One line per message, byte for byte: a change here is a change of the protocol.
HOST = [
    (
        m.host_hello("serve", "/app", {"work": "/w"}, {"app_id": "a"}, {"size": 1}, 2, ["run"]),
        '{"t":"hello","protocol":1,"mode":"serve","app_dir":"/app","dirs":{"work":"/w"},"setup":{"size":1},'
        '"concurrency":2,"ids":{"app_id":"a"},"functions":["run"]}',
    ),
    (
        m.call("t", 2, "run", {"é": 1}, {"user_id": "u"}),
        '{"t":"call","id":"t","attempt":2,"function":"run","input":{"é":1},"context":{"user_id":"u"}}',
    ),
    (m.cancel("t"), '{"t":"cancel","id":"t"}'),
    (m.inbox("t", [1]), '{"t":"inbox","id":"t","item":[1]}'),
    (m.stop(), '{"t":"stop"}'),
]
ERROR = m.error_detail("invalid_input", "ValidationError", "bad", "tb", [{"path": "/n", "message": "no"}])
FILE = m.output_file("/image", "ab12", "a.png", "image/png", 5)
CHILD = [
    (m.child_hello(7, "3.11.9"), '{"t":"hello","protocol":1,"pid":7,"python":"3.11.9"}'),
    (
        m.described([{"name": "run"}], None, "run", "App", True),
        '{"t":"described","functions":[{"name":"run"}],"setup_schema":null,"default_function":"run",'
        '"class_name":"App","concurrency_ok":true}',
    ),
    (m.ready(), '{"t":"ready"}'),
    (
        m.failed("import", ERROR),
        '{"t":"failed","stage":"import","error":{"code":"invalid_input","type":"ValidationError","message":"bad",'
        '"traceback":"tb","errors":[{"path":"/n","message":"no"}]}}',
    ),
    (m.started("t"), '{"t":"started","id":"t"}'),
    (m.log(None, "stdout", ["a"]), '{"t":"log","id":null,"stream":"stdout","lines":["a"]}'),
    (m.log("t", "log", ["a"], "info"), '{"t":"log","id":"t","stream":"log","lines":["a"],"level":"info"}'),
    (m.progress("t", 1, 2.5, "m"), '{"t":"progress","id":"t","current":1,"total":2.5,"message":"m"}'),
    (m.partial("t", {"n": 1}), '{"t":"partial","id":"t","output":{"n":1},"files":[]}'),
    (m.delta("t", {"text": "x"}), '{"t":"delta","id":"t","delta":{"text":"x"}}'),
    (
        m.result("t", {"image": None}, [FILE]),
        '{"t":"result","id":"t","output":{"image":null},"files":[{"pointer":"/image","name":"ab12",'
        '"filename":"a.png","content_type":"image/png","size":5}]}',
    ),
    (
        m.error("t", m.error_detail("exit", "SystemExit", "bye")),
        '{"t":"error","id":"t","error":{"code":"exit","type":"SystemExit","message":"bye","traceback":""}}',
    ),
    (m.cancelled("t"), '{"t":"cancelled","id":"t"}'),
]


@pytest.mark.parametrize(("known", "pairs"), [(m.HOST_MESSAGES, HOST), (m.CHILD_MESSAGES, CHILD)])
def test_every_message_is_written_like_this(known: dict[str, Any], pairs: list[tuple[m.Message, str]]) -> None:
    for message, text in pairs:
        frame = m.encode(message)
        assert frame == len(text.encode()).to_bytes(4, "big") + text.encode()
        assert m.Decoder(known).feed(frame) == [message]
    assert {message["t"] for message, _ in pairs} == set(known), "every type has its line above"


def test_frames_arrive_in_any_pieces() -> None:
    stream = b"".join(m.encode(message) for message, _ in CHILD)
    for size in (1, 3, 17, 1000):
        decoder = m.Decoder(m.CHILD_MESSAGES)
        got = [message for at in range(0, len(stream), size) for message in decoder.feed(stream[at : at + size])]
        assert got == [message for message, _ in CHILD]
        assert decoder.pending == 0


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


BAD = {
    "garbage": (framed(b"hello"), "not JSON"),
    "bytes": (framed(b"\xff\xfe"), "not JSON"),
    "nan": (framed(b'{"t":"result","id":"t","output":NaN,"files":[]}'), "NaN is not JSON"),
    "deep": (framed(b"[" * 100_000), "not JSON"),
    "list": (framed(b"[1]"), "not a JSON object"),
    "too long": (b"\xff\xff\xff\xff", "claims 4294967295 bytes"),
    "no type": (framed(b"{}"), "unknown type None"),
    "unknown type": (framed(b'{"t":"dance"}'), "unknown type 'dance'"),
    "odd type": (framed(b'{"t":[1]}'), r"unknown type \[1\]"),
    "missing field": (framed(b'{"t":"started"}'), "bad field 'id'"),
    "missing output": (framed(b'{"t":"result","id":"t","files":[]}'), "bad field 'output'"),
    "wrong field": (framed(b'{"t":"log","id":"t","stream":"stdout","lines":"x"}'), "bad field 'lines'"),
    "bool is no int": (framed(b'{"t":"progress","id":"t","current":true,"total":1}'), "bad field 'current'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_frames_are_refused_and_earlier_ones_kept(name: str) -> None:
    frame, reason = BAD[name]
    with pytest.raises(m.FrameError, match=reason) as caught:
        m.Decoder(m.CHILD_MESSAGES).feed(m.encode(m.ready()) + frame)
    assert caught.value.frames == [{"t": "ready"}]


def test_what_json_cannot_say_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        m.encode(m.result("t", float("nan")))
    with pytest.raises(TypeError):
        m.encode(m.result("t", object()))
    with pytest.raises(ValueError, match="limit"):
        m.encode(m.result("t", "x" * m.MAX_FRAME))


def test_lone_surrogates_do_not_cost_a_line() -> None:
    frame = m.encode(m.log("t", "stdout", ["a\udcffb"]))
    assert json.loads(frame[4:])["lines"] == ["a?b"]


def test_the_child_is_written_for_old_pythons() -> None:
    for path in Path(m.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
