"""A task as it goes: on a terminal a line that moves, elsewhere a line per piece of news. All of it on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

PARTIAL_WIDTH = 160
_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def status_text(update: Mapping[str, Any]) -> str:
    """The lower-case name of an update's status."""
    return str(update.get("status_text") or update["status"]).lower()


class Watch:
    """Shows the updates of one task. Use as a context manager; call `show` with each update."""

    def __init__(self, console: Console, *, quiet: bool = False, partial: bool = True) -> None:
        self._console = console
        self._quiet = quiet
        self._partial = partial
        self._status = ""
        self._attempt = 0
        self._shown: Any = None
        self._steps: tuple[Any, Any, Any] | None = None
        self._bar = _Bar(console) if console.is_terminal and not quiet else None

    def __enter__(self) -> Watch:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, update: Mapping[str, Any]) -> None:
        """Show what is new in *update*; its ``logs`` and ``sent`` are new ones only."""
        if self._quiet or update.get("event") == "delta":
            return
        self._show_attempt(update)
        status = status_text(update)
        if status != self._status:
            self._status = status
            self._tell_status(status)
        for line in update.get("logs") or ():
            self._console.print(Text(f"  {line}", style="dim"))
        sent = update.get("sent") or ()
        for message in sent:
            text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
            self._console.print(Text(f"  {text}", style="bold"))
        self._show_progress(update.get("progress"))
        if not sent:  # the partial output of such an update is the messages once more
            self._show_partial(update.get("partial_output"))

    # Styles go on the texts, not on print(): that would colour the moving line below them too.

    def _show_attempt(self, update: Mapping[str, Any]) -> None:
        attempt = update.get("attempt") or 0
        if attempt > 1 and attempt != self._attempt:
            self._console.print(Text(f"attempt {attempt}", style="yellow"))
        self._attempt = attempt

    def _tell_status(self, status: str) -> None:
        if self._bar is not None:
            self._bar.status(status)
        else:
            self._console.print(Text(status, style=_STYLES.get(status, "")))

    def _show_progress(self, progress: Mapping[str, Any] | None) -> None:
        if not progress:
            return
        steps = (progress.get("current"), progress.get("total"), progress.get("message"))
        if steps == self._steps:
            return
        self._steps = steps
        if self._bar is not None:
            self._bar.progress(*steps)
        else:
            message = f"  {steps[2]}" if steps[2] else ""
            self._console.print(Text(f"  {steps[0]}/{steps[1]}{message}"))

    def _show_partial(self, partial: Any) -> None:
        if not self._partial or partial is None or partial == self._shown:
            return
        self._shown = partial
        text = json.dumps(partial, ensure_ascii=False, default=str)
        if len(text) > PARTIAL_WIDTH:
            text = text[: PARTIAL_WIDTH - 1] + "…"
        self._console.print(Text(f"  ≈ {text}", style="blue"))


class _Bar:
    """The moving line: state, bar once the app reports progress, time."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("sending", total=None, note="")

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def status(self, status: str) -> None:
        style = _STYLES.get(status, "bold")
        self._progress.update(self._task, description=f"[{style}]{escape(status)}[/]")

    def progress(self, current: Any, total: Any, message: Any) -> None:
        self._progress.update(self._task, completed=current, total=total, note=escape(str(message or "")))
