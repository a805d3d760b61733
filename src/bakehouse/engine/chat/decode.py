"""Decoders of generated ids: text, reasoning between markers, tool calls.

One `feed` may give several events. A marker is in no event. Reasoning starts with an empty `Thinking` and ends with a
`ThinkingDone`; one that the generation's end cuts off has no `ThinkingDone`. `ToolCallStart` comes as soon as a call
has begun; if what follows cannot be read as a call it comes back as text, markers included, so nothing is lost. A call
within reasoning is reported, and the reasoning goes on after it.

What the events say depends on the text alone, never on how it was cut into tokens and feeds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bakehouse.engine.chat.base import Decoder
from bakehouse.engine.chat.calls import CallSyntax
from bakehouse.engine.chat.markers import NOTHING, JsonStrings, Markers, Pending
from bakehouse.engine.chat.whole import WholeCall, WholeObject
from bakehouse.engine.params import Done, Event, Text, Thinking, ThinkingDone, ToolCallStart
from bakehouse.engine.tokenizer.base import Tokenizer
from bakehouse.engine.tokenizer.detokenize import Detokenizer


@dataclass(frozen=True, slots=True)
class ThinkSyntax:
    """Reasoning between markers.

    ``inside``: the cue opened it already, ``spaced``: and wrote a line end after it. ``newline``: a line end after a
    marker belongs to the marker.
    """

    open: str
    close: str
    inside: bool = False
    newline: bool = False
    spaced: bool = False


class BaseDecoder(Decoder):
    """Detokenises and keeps what was said; `_scan` of a subclass moves on as far as the text allows."""

    def __init__(self, tokenizer: Tokenizer, stop_tokens: Sequence[int]) -> None:
        self._stops = frozenset(stop_tokens)
        self._bytes = Detokenizer(tokenizer)
        self.reset()

    def reset(self) -> None:
        self._bytes.reset()
        self._pending = Pending()
        self._said: list[str] = []
        self._out: list[Event] = []
        self._start()

    def feed(self, tokens: Sequence[int]) -> list[Event]:
        self._pending.add(self._bytes.feed(token for token in tokens if token not in self._stops))
        self._scan(last=False)
        return self._drain()

    def finish(self) -> list[Event]:
        self._pending.add(self._bytes.finish())
        self._scan(last=True)
        self._end()
        events = [*self._drain(), Done("".join(self._said))]
        self.reset()
        return events

    @abstractmethod
    def _start(self) -> None:
        """Back to the start."""

    @abstractmethod
    def _scan(self, *, last: bool) -> None:
        """Move on as far as the text allows; *last*: no more of it comes."""

    @abstractmethod
    def _end(self) -> None:
        """Give out what is left."""

    def _drain(self) -> list[Event]:
        events, self._out = self._out, []
        return events

    def _say(self, text: str) -> None:
        if text:
            self._said.append(text)
            self._out.append(Text(text))

    def _report(self, calls: Sequence[Event]) -> None:
        """Calls whose `ToolCallStart` is out for the first one only."""
        for number, call in enumerate(calls):
            if number:
                self._out.append(ToolCallStart())
            self._out.append(call)


class BlockDecoder(BaseDecoder):
    """For families whose reasoning and calls stand between markers in the text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_tokens: Sequence[int],
        think: ThinkSyntax | None = None,
        calls: CallSyntax | WholeCall | None = None,
    ) -> None:
        self._think = think
        self._calls = calls if isinstance(calls, CallSyntax) else None
        self._whole = calls if isinstance(calls, WholeCall) else None
        calling = [self._calls.open, *self._calls.around] if self._calls else []
        closing = [self._calls.close or self._calls.open] if self._calls else []
        self._in_text = Markers([*([think.open] if think else []), *calling])
        self._in_think = Markers([think.open, think.close, *calling] if think else [])
        self._in_call = Markers(closing)
        self._in_thought_call = Markers([*closing, think.close] if think else [])
        super().__init__(tokenizer, stop_tokens)

    def _start(self) -> None:
        self._thinking: list[str] | None = None
        self._call: _OpenCall | None = None
        self._newline = False
        self._skip_space = False
        self._object = WholeObject(self._whole) if self._whole else None
        self._fresh = self._think is not None and self._think.inside
        if self._fresh and self._think:
            self._open_thinking()
            self._newline = self._think.newline and not self._think.spaced

    def _scan(self, *, last: bool) -> None:
        while True:
            if self._newline:
                if not self._pending.take_newline(last=last):
                    return
                self._newline = False
            text, marker = self._pending.take(self._expected(), last=last)
            unread = self._take(text)
            if unread:
                self._pending.back(unread + (marker or ""))
            elif marker is None:
                return
            else:
                self._meet(marker)

    def _expected(self) -> Markers:
        if self._call is not None:
            return self._in_call if self._thinking is None else self._in_thought_call
        if self._thinking is not None:
            return self._in_think
        return NOTHING if self._object and self._object.inside else self._in_text

    def _take(self, text: str) -> str:
        """Give out *text* as what it is here. The answer is the rest that is to be looked at again."""
        if self._call is not None:
            return self._take_in_call(text)
        if self._skip_space:
            text = text.lstrip()
        if not text:
            return ""
        self._skip_space = False
        if self._thinking is not None:
            self._fresh = False
            self._thinking.append(text)
            self._out.append(Thinking(text))
            return ""
        said, rest = self._object.feed(text) if self._object else (text, "")
        self._say(said)
        return rest

    def _take_in_call(self, text: str) -> str:
        assert self._call is not None
        if self._call.begun or not text:
            self._call.add(text)
            return ""
        assert self._calls is not None
        start = text.lstrip()
        if start and self._calls.begins and start[0] not in self._calls.begins:
            raw, self._call = self._calls.open + self._call.body(), None
            self._take(raw)
            return text
        self._call.add(text)
        if start:
            self._begin_call()
        return ""

    def _begin_call(self) -> None:
        assert self._call is not None
        self._call.begun = True
        self._out.append(ToolCallStart())

    def _meet(self, marker: str) -> None:
        if self._call is not None:
            self._meet_in_call(marker)
        elif self._calls and marker == self._calls.open:
            self._open_call()
        elif self._calls and marker in self._calls.around:
            self._skip_space = True
        elif self._thinking is None:
            self._open_thinking()
        elif self._think and marker == self._think.close:
            self._close_thinking()
        elif self._fresh:  # the model repeats the marker that its cue ended with
            self._fresh, self._newline = False, self._after_marker
        else:
            self._take(marker)

    @property
    def _after_marker(self) -> bool:
        return self._think is not None and self._think.newline

    def _open_thinking(self) -> None:
        self._thinking = []
        self._out.append(Thinking(""))
        self._newline = self._after_marker

    def _close_thinking(self) -> None:
        self._out.append(ThinkingDone("".join(self._thinking or ())))
        self._thinking = None
        self._fresh = False
        self._newline = self._after_marker

    def _open_call(self) -> None:
        assert self._calls is not None
        self._fresh = False
        self._call = _OpenCall()
        if not self._calls.begins:
            self._begin_call()

    def _meet_in_call(self, marker: str) -> None:
        """Within a JSON string a marker is text. Reasoning that ends before the call does makes the call text."""
        assert self._calls is not None
        assert self._call is not None
        if self._calls.json and self._call.strings.inside:
            self._call.add(marker)
        elif marker not in self._in_call.texts:
            self._give_back_call("")
            self._meet(marker)
        else:
            self._read_call(marker if self._calls.close else "")
            if self._calls.close is None:
                self._open_call()

    def _read_call(self, closing: str) -> None:
        """Report the call that is complete, or give it back as text."""
        assert self._calls is not None
        assert self._call is not None
        calls = self._calls.parse(self._call.body())
        if calls is None:
            self._give_back_call(closing)
            return
        self._call = None
        self._report(calls)
        self._skip_space = bool(self._calls.around)

    def _give_back_call(self, closing: str) -> None:
        assert self._calls is not None
        assert self._call is not None
        raw, self._call = self._calls.open + self._call.body() + closing, None
        self._take(raw)

    def _end(self) -> None:
        """What is open at the end: a call that needs no closing marker is one, all else becomes text."""
        if self._call is not None and self._calls is not None:
            if self._calls.close is None:
                self._read_call("")
            else:
                self._give_back_call("")
        if self._object is not None:
            text, calls = self._object.finish()
            self._say(text)
            if calls:
                self._out.append(ToolCallStart())
                self._report(calls)


class _OpenCall:
    """The text of a call that is being written."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.strings = JsonStrings()
        self.begun = False

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.strings.feed(text)

    def body(self) -> str:
        return "".join(self._pieces)
