"""A task's progress on the screen: a bar in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

from inferencesh._models import Task


class View(Protocol):
    """Shows updates. ``close`` leaves the screen in order and may be repeated."""

    def __call__(self, update: Task) -> None: ...

    def close(self) -> None: ...


def view(file: TextIO | None = None) -> View:
    """The best view for *file* (standard error): a bar where rich is installed and there is a terminal or notebook."""
    try:
        from rich.console import Console
    except ImportError:
        return LineView(file or sys.stderr)
    console = Console(file=file, stderr=file is None)
    if console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal):
        return BarView(console)
    return LineView(file or sys.stderr)


def figures(update: Task) -> tuple[float | None, float | None, str]:
    """Current, total and message of an update's progress."""
    progress = update.get("progress")
    if not isinstance(progress, dict):
        return None, None, ""
    return progress.get("current"), progress.get("total"), str(progress.get("message") or "")


class LineView:
    """One line for each change: for files, pipes and terminals without rich."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._shown = ""

    def __call__(self, update: Task) -> None:
        for line in update.logs:
            print(f"  {line}", file=self._file)
        current, total, message = figures(update)
        share = f" {current:g}/{total:g}" if current is not None and total else ""
        reason = f": {update.error}" if update.error else ""
        text = f"{update.status}{share}{' ' + message if message else ''}{reason}"
        if text != self._shown:
            self._shown = text
            print(text, file=self._file)
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class BarView:
    """A live bar with the state, the progress and the time; log lines run above it."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[status]:<11}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
        )
        self._row = self._progress.add_task("", total=None, status="waiting", message="")
        self._progress.start()

    def __call__(self, update: Task) -> None:
        for line in update.logs:
            self._progress.console.print(line, style="dim", markup=False, highlight=False)
        current, total, message = figures(update)
        changes: dict[str, Any] = {"status": str(update.status), "message": message or (update.error or "")}
        if current is not None:
            changes.update(completed=current, total=total)
        if update.status == "completed":
            changes.update(completed=total or 1, total=total or 1)
        self._progress.update(self._row, **changes)

    def close(self) -> None:
        self._progress.stop()
