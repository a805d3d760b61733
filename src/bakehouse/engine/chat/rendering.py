"""Turns by the model's own template: the ids that a turn adds, where the template only ever appends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from bakehouse.engine.chat.base import Turn
from bakehouse.engine.chat.jinja import ChatTemplate
from bakehouse.engine.tokenizer.base import Tokenizer

#: What stands for the words of a turn while the template is explored.
PROBE = "Zwieback"
_USER = {"role": "user", "content": PROBE}
_ASSISTANT = {"role": "assistant", "content": PROBE}

#: Characters for private use; one that no turn holds says where a special token's name was cut.
_CUTS = [chr(code) for code in range(0xF0000, 0xF0100)]

Message = Mapping[str, Any]


class TemplateTurns:
    """Renders conversations with and without a turn. Immutable but for its caches; any thread may use it."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, *, enable_thinking: bool) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._thinking = enable_thinking
        self._pieces = lru_cache(256)(tokenizer.without_specials)
        # A template that asks for the date says something else tomorrow.
        self._rendered = self._render if "strftime_now" in template.source else lru_cache(16)(self._render)

    def ids(self, before: tuple[Turn, ...], turn: Turn, *, started: bool, end: str | None = None) -> list[int] | None:
        """What *turn* adds after *before*, None where the template cannot say.

        It cannot if it refuses the conversation, changes earlier turns because of this one, or would write this one
        otherwise if another turn followed. *started* False: nothing of *before* was written yet. *end*: of the last
        turn everything up to this token was written, and not what the template has after it.
        """
        cut = self._cut((*before, turn))
        earlier = (self._rendered(before, False, cut) if before else "") if started else ""
        turns = before if turn.role == "cue" else (*before, turn)
        later = self._rendered(turns, turn.role == "cue", cut) if turns else None
        if earlier is None or later is None or not later.startswith(earlier):
            return None
        if turn.role == "assistant" and not self._lasts(turns, later, cut):
            return None
        if end and end in earlier:
            earlier = earlier[: earlier.rindex(end) + len(end)]
        return self._suffix(earlier, later, cut)

    def shows(self, before: tuple[Turn, ...], turns: tuple[Turn, ...], text: str) -> bool:
        """True if *text* is written in what *turns* have more than *before*, the first of them."""
        cut = self._cut(turns)
        earlier = self._rendered(before, False, cut) if before else ""
        later = self._rendered(turns, False, cut)
        if earlier is None or later is None or not later.startswith(earlier):
            return False
        return text.strip() in later[len(earlier) :].replace(cut, "")

    def cue(self) -> str:
        """What opens the assistant's turn, as text; empty if that cannot be found out."""
        plain, cued = self._template_text([_USER], cue=False), self._template_text([_USER], cue=True)
        return cued[len(plain) :] if plain is not None and cued is not None and cued.startswith(plain) else ""

    def ending(self) -> tuple[str, str | None]:
        """What the template writes after the assistant's words, last and when a user's turn follows (None: refused)."""
        last = _after(self._template_text([_USER, _ASSISTANT], cue=False))
        within = self._template_text([_USER, _ASSISTANT, _USER], cue=False)
        if last is None or within is None:
            return last or "", None
        return last, _after(within[: within.rfind(PROBE)])

    def _lasts(self, turns: tuple[Turn, ...], rendered: str, cut: str) -> bool:
        followed = self._rendered((*turns, Turn("user", PROBE)), False, cut)
        return followed is None or followed.startswith(rendered)

    def _render(self, turns: tuple[Turn, ...], cue: bool, cut: str) -> str | None:
        return self._template_text([self._message(turn, cut) for turn in turns], cue=cue)

    def _template_text(self, messages: Sequence[Message], *, cue: bool) -> str | None:
        return self._template.render(messages, cue=cue, enable_thinking=self._thinking)

    def _message(self, turn: Turn, cut: str) -> Message:
        text = cut.join(self._pieces(turn.text)) if turn.role in ("user", "tool") else turn.text
        if turn.role == "tool":
            return {"role": "tool", "name": turn.name, "content": text}
        return {"role": turn.role, "content": text}

    def _cut(self, turns: Sequence[Turn]) -> str:
        texts = [turn.text for turn in turns]
        return next((cut for cut in _CUTS if not any(cut in text for text in texts)), _CUTS[0])

    def _suffix(self, before: str, whole: str, cut: str) -> list[int] | None:
        """The ids of *whole* that come after those of *before*."""
        rest = whole[len(before) :]
        if self._tokenizer.splits_between(before, rest):
            return self._encode(rest, cut)
        earlier, later = self._encode(before, cut), self._encode(whole, cut)
        return later[len(earlier) :] if later[: len(earlier)] == earlier else None

    def _encode(self, text: str, cut: str) -> list[int]:
        first, *others = text.split(cut)
        ids = self._tokenizer.encode(first)
        for piece in others:
            ids += self._tokenizer.encode_next(piece)
        return ids


def _after(text: str | None) -> str | None:
    """What follows the probe of the assistant's turn."""
    if text is None or text.count(PROBE) < 2:
        return None
    return text[text.rfind(PROBE) + len(PROBE) :]
