"""Where a command's words go: results to stdout, prose to stderr; with ``--json`` stdout holds JSON only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000


class Output:
    """The two streams of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        # A program that reads a table must find its cells whole, however long the lines get.
        width = None if sys.stdout.isatty() else WIDE
        self._out = Console(highlight=False, soft_wrap=True, width=width)

    def result(self, data: Any, render: Callable[[Console], None] | None = None) -> None:
        """The command's result: as JSON, or as *render* draws it (indented JSON when it draws nothing)."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()
        elif render is not None:
            render(self._out)
        else:
            self._out.print(json.dumps(data, ensure_ascii=False, indent=2, default=str), markup=False)

    def rows(self, data: Sequence[Any], columns: Sequence[str], cells: Callable[[Any], Iterable[Any]]) -> None:
        """A list of things: the JSON array, or a table with *columns*."""

        def draw(console: Console) -> None:
            first, *others = columns
            table = Table(box=None, header_style="bold", pad_edge=False)
            table.add_column(first, no_wrap=True, overflow="ignore")
            for name in others:
                table.add_column(name, overflow="fold")
            for item in data:
                table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells(item)))
            console.print(table, soft_wrap=False)

        self.result(list(data), draw)

    def say(self, text: str, style: str = "") -> None:
        """Prose for a person; never part of the result."""
        self.err.print(Text(text, style=style))

    def line(self, text: str) -> None:
        """One line of a text result, such as a log line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
