"""Finding markers in text that arrives in pieces, without ever giving out a part of one."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Markers:
    """A set of marker texts, none of which begins another one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(text for text in texts if text))
        longest_first = sorted(self.texts, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._beginnings = {text[:n] for text in self.texts for n in range(1, len(text))}
        self._longest = max(map(len, self._beginnings), default=0)

    def find(self, text: str) -> re.Match[str] | None:
        return self._any.search(text)

    def held(self, text: str) -> int:
        """How many characters at the end of *text* may be the beginning of a marker."""
        for length in range(min(self._longest, len(text)), 0, -1):
            if text[-length:] in self._beginnings:
                return length
        return 0


NOTHING = Markers(())


class Pending:
    """Text that has arrived and is not dealt with yet: short, because everything before a possible marker goes out."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, text: str) -> None:
        self._text += text

    def back(self, text: str) -> None:
        """Put *text* in front again, to be looked at in another light."""
        self._text = text + self._text

    def take(self, markers: Markers, *, last: bool = False) -> tuple[str, str | None]:
        """The text before the first marker, and that marker; without one, all text that surely is before any.

        *last* says that nothing more will come, so nothing is held back.
        """
        if match := markers.find(self._text):
            before, self._text = self._text[: match.start()], self._text[match.end() :]
            return before, match[0]
        cut = len(self._text) - (0 if last else markers.held(self._text))
        before, self._text = self._text[:cut], self._text[cut:]
        return before, None

    def take_newline(self, *, last: bool) -> bool:
        """Drop one line end if it comes next. False if that is not known yet."""
        if self._text:
            self._text = self._text.removeprefix("\n")
            return True
        return last


class JsonStrings:
    """Whether JSON text so far ends within a string. A raw line end, which JSON forbids in one, ends it."""

    _SIGNS = re.compile(r'[\\"\n]')

    def __init__(self) -> None:
        self.inside = False
        self._escaped = False

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            if self._escaped:
                self._escaped, position = False, position + 1
                continue
            sign = self._SIGNS.search(text, position)
            if sign is None:
                return
            position = sign.end()
            if sign[0] == '"':
                self.inside = not self.inside
            elif sign[0] == "\\":
                self._escaped = self.inside
            else:
                self.inside = False
