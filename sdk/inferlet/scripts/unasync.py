"""Writes the synchronous modules of `inferlet` from those of `inferlet.aio`, token by token.

``python scripts/unasync.py`` writes them; with ``--check`` it only says which are out of date, and then ends with 1.
What stands between ``# unasync: leave out`` and ``# unasync: go on`` has no synchronous twin.
"""

from __future__ import annotations

import io
import sys
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "inferlet"
#: Modules that wait; what never does is written once, beside them.
MODULES = ("streams", "context", "forward", "adapter", "session", "runtime", "messaging", "mcp", "zo")
HEADER = "# Written by scripts/unasync.py from aio/{name}.py: change that one.\n"

NAMES = {
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "StopAsyncIteration": "StopIteration",
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "AsyncGenerator": "Generator",
}


def synchronous(source: str) -> str:
    """*source* without ``async`` and ``await``, with the names of the synchronous protocols and modules."""
    lines = _kept(source).splitlines(keepends=True)
    for (row, start), end, text in reversed(list(_changes("".join(lines)))):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + text + line[end:]
    return "".join(_sorted_imports(lines))


def _sorted_imports(lines: list[str]) -> Iterator[str]:
    """Imports of our own modules have other names now; each block of them is in order again."""
    for ours, block in groupby(lines, key=lambda line: line.startswith("from inferlet")):
        found = list(block)
        yield from sorted(found, key=lambda line: line.split()[1]) if ours else found


def _kept(source: str) -> str:
    """Lines outside the marked ones. Those that were left out leave no gap of blank lines either."""
    found: list[str] = []
    out = False
    for line in source.splitlines(keepends=True):
        mark = line.strip()
        if mark == "# unasync: leave out":
            out = True
            while found and not found[-1].strip():
                found.pop()
        elif mark == "# unasync: go on":
            out = False
        elif not out:
            found.append(line)
    return "".join(found)


def _changes(source: str) -> Iterator[tuple[tuple[int, int], int, str]]:
    """Places, as row and column, the column behind, and what comes there. No change reaches over a line's end."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for at, token in enumerate(tokens[:-1]):
        following = tokens[at + 1]
        if token.type != tokenize.NAME:
            continue
        if token.string in ("async", "await"):
            yield token.start, following.start[1], ""
        elif token.string in NAMES:
            yield token.start, token.end[1], NAMES[token.string]
        elif token.string == "inferlet" and following.string == "." and tokens[at + 2].string == "aio":
            yield token.start, tokens[at + 2].end[1], "inferlet"


def twins() -> Iterator[tuple[Path, str]]:
    """The synchronous modules and what has to stand in them."""
    for name in MODULES:
        source = (PACKAGE / "aio" / f"{name}.py").read_text()
        yield PACKAGE / f"{name}.py", HEADER.format(name=name) + synchronous(source)


def main(check: bool) -> int:
    stale = [(path, text) for path, text in twins() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        print(f"{'out of date' if check else 'written'}: {path}")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
