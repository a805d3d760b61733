"""Calls of families that answer with nothing else: all of the text is one JSON object."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bakehouse.engine.chat.calls import object_call
from bakehouse.engine.chat.markers import JsonStrings
from bakehouse.engine.params import ToolCall

_BRACES = re.compile(r"[{}]")


@dataclass(frozen=True, slots=True)
class WholeCall:
    """All visible text, trimmed, is one JSON object; ``prefix`` may stand before it."""

    prefix: str = ""


class WholeObject:
    """Holds text back while all of it may still be one JSON object."""

    def __init__(self, syntax: WholeCall) -> None:
        self._prefix = syntax.prefix
        self._held: list[str] = []
        self._state = "before"  # before, inside, after, or no: it is ordinary text
        self._depth = 0
        self._strings = JsonStrings()

    @property
    def inside(self) -> bool:
        return self._state in ("inside", "after")

    def feed(self, text: str) -> tuple[str, str]:
        """What is surely ordinary text, and the rest that has not been looked at."""
        if self._state == "before":
            text = self._look_for_start(text)
        elif self._state == "inside":
            text = self._look_for_end(text)
        elif self._state == "after":
            space = text[: len(text) - len(text.lstrip())]
            self._held.append(space)
            text = text[len(space) :]
            self._state = "no" if text else "after"
        else:
            return text, ""
        return (self._release() if self._state == "no" else ""), text

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Text that was held back, or the calls that it is."""
        calls = self._calls() if self._state == "after" else None
        return ("" if calls else self._release()), calls or []

    def _calls(self) -> list[ToolCall] | None:
        return object_call("".join(self._held).strip().removeprefix(self._prefix))

    def _release(self) -> str:
        text, self._held = "".join(self._held), []
        return text

    def _look_for_start(self, text: str) -> str:
        """Holds space and the prefix. The answer begins with the first other character."""
        held = "".join(self._held) + text
        body = held.lstrip()
        if self._prefix and self._prefix.startswith(body):
            self._held = [held]
            return ""
        body = body.removeprefix(self._prefix).lstrip()
        self._held = [held[: len(held) - len(body)]]
        if body:
            self._state = "inside" if body.startswith("{") else "no"
        return body

    def _look_for_end(self, text: str) -> str:
        """Follows the braces to the object's end. The answer is what comes after it."""
        position = 0
        for match in _BRACES.finditer(text):
            self._strings.feed(text[position : match.start()])
            position = match.start()
            if not self._strings.inside:
                self._depth += 1 if match[0] == "{" else -1
            if self._depth == 0:
                return self._end_object(text[: match.end()], text[match.end() :])
        self._strings.feed(text[position:])
        self._held.append(text)
        return ""

    def _end_object(self, body: str, rest: str) -> str:
        self._held.append(body)
        self._state = "after" if self._calls() else "no"
        return rest
