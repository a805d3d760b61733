"""The documentation as data: pages, and the fenced blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. ``options`` are what follows the language: ``file=hello/inf.yml`` names a file to write."""

    page: Path
    line: int
    language: str
    body: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of *page* in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        language, *rest = match["info"].split() or [""]
        options = dict(item.split("=", 1) for item in rest)
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, match["body"], options)


def prose(page: Path) -> str:
    """*page* without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
