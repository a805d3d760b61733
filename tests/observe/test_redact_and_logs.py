"""Log lines: their shape, and that no secret is in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bakehouse.observe.logging import configure_logging
from bakehouse.observe.redact import redact

KEY = "inf_" + "a" * 43


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_word_its_time_and_its_ids() -> None:
    stream = io.StringIO()
    configure_logging("auto", "info", stream)
    structlog.get_logger("any").info("task claimed", action="task_claimed", task="task_1", count=3)
    (line,) = _lines(stream)
    assert line.pop("timestamp")
    assert line == {"event": "task claimed", "action": "task_claimed", "task": "task_1", "count": 3, "level": "info"}


def test_levels_below_are_dropped() -> None:
    stream = io.StringIO()
    configure_logging("json", "warning", stream)
    structlog.get_logger().info("no", action="a")
    logging.getLogger("lib").info("no")
    structlog.get_logger().error("yes", action="b")
    assert [line["action"] for line in _lines(stream)] == ["b"]


def test_libraries_come_out_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("some.library").warning("key %s is wrong", KEY)
    (line,) = _lines(stream)
    assert (line["action"], line["logger"], line["level"]) == ("library", "some.library", "warning")
    assert line["event"] == "key inf_[hidden] is wrong"


def test_a_word_and_ids_may_come_by_extra() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("bakehouse.store").info("backed up", extra={"action": "backed_up", "path": "/x"})
    (line,) = _lines(stream)
    assert (line["action"], line["path"], line["event"]) == ("backed_up", "/x", "backed up")


def test_a_traceback_is_one_field_and_holds_no_key() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        structlog.get_logger().exception("failed", action="failed")
    (line,) = _lines(stream)
    assert "ValueError: bad key inf_[hidden]" in str(line["exception"])


def test_the_console_form_is_for_people() -> None:
    stream = io.StringIO()
    configure_logging("console", "info", stream)
    structlog.get_logger().info("task claimed", action="task_claimed", task="task_1")
    assert "task claimed" in stream.getvalue()
    assert "task=task_1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()  # a file is no terminal


@pytest.mark.parametrize(
    "secret",
    [
        {"Authorization": "Bearer abc.def"},
        {"headers": [{"x-api-key": 1, "api_key": "topsecret"}]},
        {"url": "https://x.org/tasks/1/stream?after=1&access_token=topsecret&x=1"},
        {"url": "postgresql://me:topsecret@db/name"},
        {"note": f"the key {KEY}"},
        {"note": "sent Bearer topsecret"},
        {"password": ["topsecret"]},
    ],
)
def test_secrets_are_hidden(secret: dict[str, object]) -> None:
    text = json.dumps(redact(secret))
    assert "topsecret" not in text
    assert KEY not in text
    assert "abc.def" not in text
    assert "[hidden]" in text


def test_ids_stay_readable() -> None:
    line = {"key_id": "key_1", "env_key": "abc", "task": "task_1", "n": 1, "url": "http://127.0.0.1:8787/x?after=4"}
    assert redact(line) == line
