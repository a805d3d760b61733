"""What an instance sends, on a terminal: an outlet that prints, saves files, and can feed lines in."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

from bakehouse.inferlets.base import Outcome, Outlet
from bakehouse.inferlets.errors import NotRunning, Refused

#: Seconds between two tries to put a line into a program's queue that is full.
_AGAIN = 0.02
#: The limits that are hit for a while only.
_FULL = ("queue", "memory")


class Terminal(Outlet):
    """Messages go to stdout behind ``[Message] ``, printed text where it was printed, files into *folder*.

    With *as_json* everything goes to stdout, a JSON object per line.
    """

    def __init__(self, folder: Path, *, as_json: bool = False) -> None:
        self._folder, self._json = folder, as_json
        self._guard = threading.Lock()
        self._files = 0
        self.over = threading.Event()
        self.outcome: Outcome | None = None

    def message(self, text: str) -> None:
        self._tell("message", f"[Message] {text}\n", text=text)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._tell(stream, text, sys.stdout if stream == "stdout" else sys.stderr, text=text)

    def file(self, data: bytes) -> None:
        path = self._save(data)
        self._tell("file", f"[File] {path} ({len(data)} bytes)\n", path=str(path), size=len(data))

    def gap(self, missed: int) -> None:
        """So many events are gone."""
        self._tell("gap", f"[{missed} events are gone]\n", sys.stderr, missed=missed)

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.over.set()

    def conclude(self, outcome: Outcome) -> int:
        """Show how it ended; the exit status."""
        failure = outcome.failure
        if failure is None:
            if outcome.result or self._json:
                self._tell("result", f"[Result] {outcome.result}\n", text=outcome.result)
            return 0
        limit = f" (limit {failure.limit})" if failure.limit else ""
        self._tell("error", f"[Error] {failure.message}{limit}\n", sys.stderr, **asdict(failure))
        return 1

    def _tell(self, event: str, line: str, stream: IO[str] | None = None, **fields: Any) -> None:
        target = sys.stdout if self._json or stream is None else stream
        text = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n" if self._json else line
        with self._guard:
            target.write(_printable(text, target))
            target.flush()

    def _save(self, data: bytes) -> Path:
        """Write it under a name that nothing has yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._files += 1
            path = self._folder / f"file-{self._files}"
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            return path


def _printable(text: str, stream: Any) -> str:
    """*text* in the characters that *stream* can write; on a terminal without those that give it orders."""
    if stream.isatty():
        text = _ORDERS.sub(_shown, text)
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


#: Control characters but for tabs and the ends of lines: a program could set the clipboard, or hide what was there.
_ORDERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _shown(order: re.Match[str]) -> str:
    code = ord(order[0])
    return chr(0x2400 + code) if code < 0x20 else "\N{SYMBOL FOR DELETE}"


def feed_lines(lines: IO[str], send: Callable[[str], None], over: threading.Event) -> None:
    """Send each line of *lines*, from a thread of its own, until they or the instance end."""

    def run() -> None:
        for line in lines:
            if not _sent(line.removesuffix("\n"), send, over):
                return

    # A read of a terminal cannot be interrupted, so nobody waits for this thread.
    threading.Thread(target=run, name="pie-lines", daemon=True).start()


def _sent(line: str, send: Callable[[str], None], over: threading.Event) -> bool:
    while not over.is_set():
        try:
            send(line)
        except Refused as error:
            if error.field not in _FULL:
                print(f"a line was not sent: {error.detail}", file=sys.stderr, flush=True)
                return True
            time.sleep(_AGAIN)  # it takes them as it can
        except NotRunning:
            return False
        else:
            return True
    return False
