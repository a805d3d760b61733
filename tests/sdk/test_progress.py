"""What progress looks like: lines in a pipe, a bar in a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from inferencesh import Inference
from inferencesh._models import Task
from inferencesh._progress import BarView, LineView, view
from rich.console import Console

from tests.sdk.far_end import FarEnd, data, stream
from tests.sdk.network import line


def updates() -> list[Task]:
    return [
        Task({"id": "t", "status": 2, "logs": []}),
        Task({"id": "t", "status": 7, "logs": ["[red]a line[/red]"], "progress": {"current": 1, "total": 4}}),
        Task({"id": "t", "status": 7, "logs": [], "progress": {"current": 1, "total": 4}}),
        Task({"id": "t", "status": 7, "logs": [], "progress": {"current": 3, "total": 4, "message": "page 3"}}),
    ]


def test_lines_for_pipes() -> None:
    file = io.StringIO()
    shown = LineView(file)
    for update in [*updates(), Task({"id": "t", "status": 11, "error": "no paper"})]:
        shown(update)
    shown.close()
    assert file.getvalue().splitlines() == [
        "queued", "  [red]a line[/red]", "running 1/4", "running 3/4 page 3", "failed: no paper"
    ]  # fmt: skip


def test_a_bar_for_terminals() -> None:
    file = io.StringIO()
    shown = BarView(Console(file=file, force_terminal=True, width=100))
    for update in [*updates(), Task({"id": "t", "status": 10, "logs": []})]:
        shown(update)
    shown.close()
    shown.close()
    text = file.getvalue()
    assert "[red]a line[/red]" in text  # the app's text is no markup
    assert "completed" in text
    assert "100%" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_a_file_is_no_terminal() -> None:
    assert isinstance(view(io.StringIO()), LineView)


def test_without_rich_there_are_lines() -> None:
    program = """
import sys
sys.modules["rich"] = sys.modules["rich.console"] = None
from inferencesh._progress import LineView, view
assert isinstance(view(), LineView)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_run_shows_it(far: FarEnd, capsys: pytest.CaptureFixture[str]) -> None:
    far.on("POST", "/apps/run", data({"id": "task_1", "status": 2}))
    far.on("GET", "/tasks/task_1/stream", stream(line(7, 2, progress={"current": 1, "total": 2}), line(10, 3)))
    far.on("GET", "/tasks/task_1", data({"id": "task_1", "status": 10}))
    Inference("k", base_url=far.url).run({"app": "a"}, progress=True)
    assert capsys.readouterr().err.splitlines() == ["running 1/2", "completed"]
