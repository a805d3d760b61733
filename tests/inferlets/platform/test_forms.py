"""What goes into a program and what comes out of it, as the platform says it."""

from __future__ import annotations

from typing import Any

import pytest

from bakehouse.inferlets.base import Failure
from bakehouse.llm.calls import arguments_of, failed, output_of, text_of, uri_of
from bakehouse.wiring.inferlets import guess_type


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ({}, ()),
        ({"a": 1}, ('{"a":1}',)),
        ({"args": ["x", "y"]}, ("x", "y")),
        ({"args": ["x", 1]}, ('{"args":["x",1]}',)),
        ({"args": ["x"], "more": 1}, ('{"args":["x"],"more":1}',)),
    ],
)
def test_arguments(value: dict[str, Any], arguments: tuple[str, ...]) -> None:
    assert arguments_of(value) == arguments


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ("", {"result": ""}),
        ("a text", {"result": "a text"}),
        ("42", {"result": "42"}),
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", {"result": [1, 2]}),
        ("{broken", {"result": "{broken"}),
    ],
)
def test_outputs(result: str, output: dict[str, Any]) -> None:
    assert output_of(result) == output


@pytest.mark.parametrize(
    ("content", "text", "uri"),
    [
        ("hello", "hello", None),
        ({"text": "hello"}, "hello", None),
        ({"text": 3}, '{"text":3}', None),
        ({"text": "a", "b": 1}, '{"text":"a","b":1}', None),
        ([1], "[1]", None),
        (None, "null", None),
        ({"file": "http://x"}, None, "http://x"),
        ({"file": {"uri": "http://x", "size": 3}}, None, "http://x"),
        ({"uri": "http://x", "filename": "x"}, None, "http://x"),
        ({"uri": "http://x", "note": "mine"}, '{"uri":"http://x","note":"mine"}', None),
    ],
)
def test_items_of_the_inbox(content: Any, text: str | None, uri: str | None) -> None:
    assert uri_of(content) == uri
    if uri is None:
        assert text_of(content) == text


def test_ends() -> None:
    assert failed(Failure("cancelled", "it was terminated")).cancelled
    ended = failed(Failure("limit_exceeded", "memory: 1", "memory", "trace")).failure
    assert ended is not None
    assert (ended.code, ended.message, ended.traceback) == ("limit_exceeded", "memory: 1", "trace")
    assert ended.fields[0]["path"] == "/limits/memory"


def test_types_of_files_without_a_name() -> None:
    assert guess_type(b"\x89PNG\r\n\x1a\nrest") == "image/png"
    assert guess_type("häppchen".encode()) == "text/plain; charset=utf-8"
    assert guess_type(b"\xff\xfe\x00") == "application/octet-stream"
