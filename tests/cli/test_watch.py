"""A task shown live, away from a terminal and on one."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bakehouse.cli.watch import Watch

STORY: list[dict[str, Any]] = [
    {"status": 2, "status_text": "queued", "logs": [], "attempt": 0},
    {"status": 7, "status_text": "running", "logs": ["loading [weights]"], "attempt": 1},
    {"status": 7, "status_text": "running", "logs": [], "progress": {"current": 1, "total": 4, "message": "page"}},
    {"status": 7, "status_text": "running", "logs": [], "progress": {"current": 1, "total": 4, "message": "page"}},
    {"status": 7, "status_text": "running", "partial_output": {"text": "x" * 500}},
    {"status": 2, "status_text": "queued", "logs": [], "attempt": 1},
    {"status": 7, "status_text": "running", "logs": ["again"], "attempt": 2},
    {"id": "t", "event": "delta", "delta": {"response": "hi"}, "status": 7},
    {"status": 10, "status_text": "completed", "logs": [], "attempt": 2},
]


def _shown(*, terminal: bool, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None, soft_wrap=True)
    with Watch(console, quiet=quiet) as watch:
        for update in STORY:
            watch.show(update)
    return stream.getvalue()


def test_a_line_per_piece_of_news() -> None:
    lines = _shown(terminal=False).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        "queued", "running", "queued", "attempt 2", "running", "completed",
    ]  # fmt: skip
    assert lines.count("  1/4  page") == 1
    assert "  loading [weights]" in lines
    assert max(len(line) for line in lines) <= 170


@pytest.mark.parametrize("text", ["loading [weights]", "attempt 2", "again", "≈"])
def test_a_terminal_sees_the_same(text: str) -> None:
    assert text in _shown(terminal=True)


def test_quiet_is_quiet() -> None:
    assert _shown(terminal=False, quiet=True) == ""
    assert _shown(terminal=True, quiet=True) == ""


def test_messages_are_shown_and_not_repeated_as_outputs() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, color_system=None, soft_wrap=True)
    with Watch(console) as watch:
        sent = {"sent": ["rye is ready", {"uri": "x"}], "partial_output": {"first": 0, "messages": ["rye is ready"]}}
        watch.show({"status": 7, "status_text": "running", "logs": [], **sent})
    assert stream.getvalue().splitlines()[1:] == ["  rye is ready", '  {"uri": "x"}']
