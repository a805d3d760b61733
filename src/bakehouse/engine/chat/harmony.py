"""The decoder of GPT-OSS: messages with a header each, as its public format (harmony) has them.

A generation goes on from ``<|start|>assistant``. Each message has a channel, perhaps a recipient, then its body:
``<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...``. The final channel, and
commentary to nobody, is the visible text, without its header. Analysis is reasoning; commentary to ``functions.NAME``
is a call. What no decoder was asked for stays in the text as it was generated, header included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bakehouse.engine.chat.calls import json_object
from bakehouse.engine.chat.decode import BaseDecoder
from bakehouse.engine.chat.markers import JsonStrings, Markers
from bakehouse.engine.params import Thinking, ThinkingDone, ToolCall, ToolCallStart
from bakehouse.engine.tokenizer.base import Tokenizer

_OPEN = Markers(("<|channel|>", "<|start|>"))
_MESSAGE = Markers(("<|message|>",))
_CLOSE = Markers(("<|end|>", "<|call|>", "<|return|>", "<|channel|>", "<|start|>"))
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_FUNCTION = re.compile(r"\bto=functions\.(\S+?)(?=\s|<|\Z)")


class HarmonyDecoder(BaseDecoder):
    def __init__(
        self, tokenizer: Tokenizer, stop_tokens: Sequence[int], *, reasoning: bool = False, tool_use: bool = False
    ) -> None:
        self._reasoning = reasoning
        self._tool_use = tool_use
        super().__init__(tokenizer, stop_tokens)

    def _start(self) -> None:
        self._kind = "plain"  # between messages; then header, and one of text, raw, thinking, call
        self._header = ""
        self._pieces: list[str] = []
        self._strings = JsonStrings()
        self._function = ""

    def _scan(self, *, last: bool) -> None:
        while True:
            expected = {"plain": _OPEN, "header": _MESSAGE}.get(self._kind, _CLOSE)
            text, marker = self._pending.take(expected, last=last)
            self._take(text)
            if marker is None:
                return
            self._meet(marker)

    def _take(self, text: str) -> None:
        if not text:
            return
        if self._kind in ("header", "call"):
            self._pieces.append(text)
            self._strings.feed(text)
        elif self._kind == "thinking":
            self._pieces.append(text)
            self._out.append(Thinking(text))
        else:
            self._say(text)

    def _meet(self, marker: str) -> None:
        if self._kind == "header":
            self._open_message("".join(self._pieces) + marker)
        elif self._kind == "call" and self._strings.inside:
            self._take(marker)
        else:
            self._close_message(marker)
            if marker in _OPEN.texts:
                self._kind, self._pieces = "header", [marker]

    def _open_message(self, header: str) -> None:
        self._header, self._pieces = header, []
        channel, function = _CHANNEL.search(header), _FUNCTION.search(header)
        self._kind = self._kind_of(channel[1] if channel else "", function is not None, "to=" in header)
        if self._kind == "raw":
            self._say(header)
        elif self._kind == "thinking":
            self._out.append(Thinking(""))
        elif self._kind == "call" and function:
            self._function, self._strings = function[1], JsonStrings()
            self._out.append(ToolCallStart())

    def _kind_of(self, channel: str, is_call: bool, addressed: bool) -> str:
        if is_call:
            return "call" if self._tool_use else "raw"
        if channel == "analysis":
            return "thinking" if self._reasoning else "raw"
        return "text" if channel in ("final", "commentary") and not addressed else "raw"

    def _close_message(self, marker: str) -> None:
        kind, self._kind = self._kind, "plain"
        closing = "" if marker in _OPEN.texts else marker
        if kind == "thinking":
            self._out.append(ThinkingDone("".join(self._pieces)))
        elif kind == "call":
            self._close_call(closing)
        elif kind == "raw":
            self._say(closing)

    def _close_call(self, closing: str) -> None:
        body = "".join(self._pieces)
        arguments = json_object(body or "{}")
        if arguments is None:
            self._say(self._header + body + closing)
        else:
            self._out.append(ToolCall(self._function, arguments))

    def _end(self) -> None:
        """A call needs no closing marker here: it is a stop token, which is not among the generated ids."""
        if self._kind == "call":
            self._close_call("")
        elif self._kind == "header":
            self._say("".join(self._pieces))
