"""What a guest prints: bytes become lines, and there is an end to it."""

from __future__ import annotations

import codecs
from typing import Literal

from bakehouse.inferlets.sandbox.running import Output, Running, over

Stream = Literal["stdout", "stderr"]

_KEPT = 1 << 14
_TRACEBACK = "Traceback (most recent call last):"

LONGEST_LINE = 1 << 16
"""Characters. A longer line comes in pieces."""


class Screen:
    """Standard output and error of one guest. *output* gets one line at a time, its end included if it has one.

    Bytes that are no UTF-8 become replacement characters.
    """

    def __init__(self, running: Running, output: Output) -> None:
        self._running = running
        self._streams = {"stdout": _Lines("stdout", output), "stderr": _Lines("stderr", output)}
        #: The end of what went to standard error, to find out why a guest failed.
        self.last_errors = b""

    def write(self, stream: Stream, data: bytes) -> bool:
        """Whether the guest may go on. What is within the limit was put out in any case."""
        limit = self._running.limits.output
        allowed = data[: self._running.guest.family.print(len(data), limit)]
        if stream == "stderr":
            self.last_errors = (self.last_errors + allowed)[-_KEPT:]
        self._streams[stream].write(allowed)
        if len(allowed) < len(data):
            self._running.end(over("output", f"it printed more than {limit} bytes, with all that it spawned"))
            return False
        return True

    def traceback(self) -> str:
        """The last one that was printed; empty where none was, or it is too long to be of use."""
        text = self.last_errors.decode(errors="replace")
        begin = text.rfind(_TRACEBACK)
        return "" if begin < 0 else text[begin:]

    def close(self) -> None:
        """Put out what has no line end."""
        for lines in self._streams.values():
            lines.close()


class _Lines:
    def __init__(self, name: Stream, output: Output) -> None:
        self._name, self._output = name, output
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def write(self, data: bytes) -> None:
        *lines, rest = (self._rest + self._decode(data)).split("\n")
        for line in lines:
            self._put(line + "\n")
        while len(rest) > LONGEST_LINE:
            self._put(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._rest = rest

    def close(self) -> None:
        self._put(self._rest + self._decode(b"", True))
        self._rest = ""

    def _put(self, text: str) -> None:
        for start in range(0, len(text), LONGEST_LINE):
            self._output(self._name, text[start : start + LONGEST_LINE])
