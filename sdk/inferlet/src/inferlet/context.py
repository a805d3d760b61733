# Written by scripts/unasync.py from aio/context.py: change that one.
"""Contexts: what a model has read and written so far, and generation from there.

A context holds, in this order: tokens in committed KV pages, tokens filled since (the cursor counts them), and a buffer
of tokens that the model has not seen yet. Building a prompt only appends to the buffer; nothing runs until something is
generated, flushed or passed forward.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from inferlet._host import Contexts, Host
from inferlet._packing import pack_ids, pack_json
from inferlet._waits import result
from inferlet.decoder import Decoder
from inferlet.events import Event
from inferlet.generation import Asked, LogitMask, Options, request_of
from inferlet.model import Model
from inferlet.sampler import Sampler
from inferlet.streams import EventStream, Stream, TokenStream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["Context", "ContextState", "Decoder", "Event", "EventStream", "TokenStream"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ContextState:
    """Tokens by where they are: in committed pages, filled since (``cursor`` of them), and buffered.

    ``last_position`` is the highest position that the model has seen, None in an empty context; ``page_size`` is in
    tokens. ``name`` is the one that was given, if any.
    """

    name: str | None
    committed_pages: int
    cursor: int
    buffered: list[int]
    last_position: int | None
    page_size: int


class Context:
    """One conversation, or branch of one.

    Without a *name* it is this program's alone and is freed with it, or when the last reference to it goes. With one it
    stays, for `lookup` by later programs of the same owner, until it is released; a name that is taken goes over to the
    new context. *fill* is ids to begin with. Raises `LimitExceeded` where the program has too many of them.

    While a generation of it is under way it can be forked, looked at and released; anything else ends that generation
    after what was read of it.
    """

    def __init__(self, model: Model, name: str | None = None, fill: Iterable[int] | None = None) -> None:
        self._begin(model, model._host.contexts.create(model._handle, name), name)
        if fill is not None:
            self.fill_tokens(fill)

    def _begin(self, model: Model, handle: int, name: str | None) -> None:
        self.model = model
        self._host: Host = model._host
        self._handle = handle
        self._name = name
        self._number = next(_numbers)
        self._released = False
        self._stream: weakref.ref[Stream] | None = None

    @classmethod
    def _of(cls, model: Model, handle: int, name: str | None) -> Self:
        context = cls.__new__(cls)
        context._begin(model, handle, name)
        return context

    @classmethod
    def lookup(cls, model: Model, name: str) -> Self | None:
        """The context of that name, whichever program of the same owner left it; None where there is none."""
        handle = model._host.contexts.lookup(model._handle, name)
        return None if handle is None else cls._of(model, handle, name)

    def fork(self, name: str | None = None) -> Self:
        """A context that equals this one and goes its own way; pages are shared, nothing is computed again.

        Raises `NameTaken` for a *name* that a live context has.
        """
        return self._of(self.model, self._host.contexts.fork(self._handle, name), name)

    def release(self) -> None:
        """Free it, pages and name; what runs of it is `Cancelled`. May be repeated. All other uses are `NotFound`."""
        if not self._released:
            self._released = True
            self._host.contexts.release(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        # Where the host is gone, or the constructor failed, there is nothing to free.
        with contextlib.suppress(Exception):
            if self._name is None:
                self.release()

    @property
    def name(self) -> str:
        """The one it was given; else one made up for people, which no other context has and `lookup` does not know."""
        return self._name or f"ctx-{self._host.runtime.instance_id()}-{self._number:08x}"

    def __repr__(self) -> str:
        return f"<Context {self.name!r}>"

    # Building the prompt

    def system(self, message: str) -> None:
        """Append one whole turn of the system, in the model's chat format."""
        self._use().say(self._handle, "system", message)

    def user(self, message: str) -> None:
        """Append one whole turn of the user."""
        self._use().say(self._handle, "user", message)

    def assistant(self, message: str) -> None:
        """Append one whole turn of the assistant, as a reminder of what it said."""
        self._use().say(self._handle, "assistant", message)

    def cue(self) -> None:
        """Append the header that opens the assistant's turn."""
        self._use().cue(self._handle)

    def seal(self) -> None:
        """Append the token that ends a turn, unless the buffer ends with a stop token already."""
        self._use().seal(self._handle)

    def fill(self, text: str) -> None:
        """Append the ids of *text*, as `Tokenizer.encode` gives them."""
        self._use().append(self._handle, self.model.tokenizer()._encoded(text))

    def fill_tokens(self, ids: Iterable[int]) -> None:
        """Append *ids*, any iterable of them. Raises `BadRequest` for one that is beyond the vocabulary."""
        self._use().append(self._handle, pack_ids(ids))

    def equip_tools(self, tools: Iterable[str]) -> None:
        """Declare *tools*, each as JSON text: a function, bare or in the wrapper of the OpenAI API.

        Raises `BadRequest` for what is no JSON, or has no name.
        """
        self._use().equip_tools(self._handle, json.dumps(_texts(tools)))

    def answer_tool(self, name: str, value: str) -> None:
        """Append the turn that gives a tool's result, *value* as it is."""
        self._use().answer_tool(self._handle, name, value)

    def stop_tokens(self) -> list[int]:
        """The ids that end a generation; nothing is appended."""
        return self.model.stop_tokens

    def flush(self) -> None:
        """Run all but the last buffered token through the model. Nothing happens with fewer than two.

        Raises `OutOfPages` where the KV pool cannot hold them, and leaves the context as it was.
        """
        self._use()
        result(self._host, self._host.passes.flush(self._handle))

    def _use(self) -> Contexts:
        """The host's calls of contexts, after an open generation was ended."""
        stream = None if self._stream is None else self._stream()
        self._stream = None
        if stream is not None:
            stream.cut()
        return self._host.contexts

    # Pages, cursor and buffer, for programs that run forward passes of their own

    def state(self) -> ContextState:
        """Everything below, asked for once."""
        return ContextState(**json.loads(self._host.contexts.state(self._handle)))

    @property
    def tokens_per_page(self) -> int:
        """Tokens that a KV page holds."""
        return self.model.page_size

    @property
    def committed_page_count(self) -> int:
        """Pages that are full and never change again; others may share them."""
        return self.state().committed_pages

    @property
    def last_position(self) -> int | None:
        """The highest position that the model has seen, counted from 0; None in an empty context."""
        return self.state().last_position

    @property
    def cursor(self) -> int:
        """Tokens filled since the last committed page. Set it to a smaller number to take the last ones back."""
        return self.state().cursor

    @cursor.setter
    def cursor(self, count: int) -> None:
        self._use().set_cursor(self._handle, count)

    @property
    def buffered_tokens(self) -> list[int]:
        """A copy of the buffer. Set it to put other tokens in its place."""
        return self.state().buffered

    @buffered_tokens.setter
    def buffered_tokens(self, ids: Iterable[int]) -> None:
        self._use().set_buffer(self._handle, pack_ids(ids))

    def reserve_pages(self, count: int) -> None:
        """Have at least *count* pages that are not committed. Passes do this by themselves."""
        self._use().reserve_pages(self._handle, count)

    def release_pages(self, count: int) -> None:
        """Drop the last *count* pages that are not committed, and what was filled in them."""
        self._use().release_pages(self._handle, count)

    def commit_pages(self, indices: Iterable[int]) -> None:
        """Make full pages, by their place among those that are not committed, immutable and shared."""
        self._use().commit_pages(self._handle, pack_ids(indices))

    # Generation

    @overload
    def generate(
        self,
        sampler: Sampler,
        *,
        decode: Literal[False] = False,
        reasoning: Literal[False] = False,
        tool_use: Literal[False] = False,
        **asked: Unpack[Asked],
    ) -> TokenStream: ...
    @overload
    def generate(
        self,
        sampler: Sampler,
        *,
        decode: Literal[True],
        reasoning: bool = False,
        tool_use: bool = False,
        **asked: Unpack[Asked],
    ) -> EventStream: ...
    @overload
    def generate(
        self,
        sampler: Sampler,
        *,
        decode: bool = False,
        reasoning: Literal[True],
        tool_use: bool = False,
        **asked: Unpack[Asked],
    ) -> EventStream: ...
    @overload
    def generate(
        self,
        sampler: Sampler,
        *,
        decode: bool = False,
        reasoning: bool = False,
        tool_use: Literal[True],
        **asked: Unpack[Asked],
    ) -> EventStream: ...
    @overload
    def generate(
        self,
        sampler: Sampler,
        *,
        decode: bool = False,
        reasoning: bool = False,
        tool_use: bool = False,
        **asked: Unpack[Asked],
    ) -> TokenStream | EventStream: ...

    def generate(
        self,
        sampler: Sampler,
        *,
        max_tokens: int | None = None,
        logit_mask: LogitMask | None = None,
        decode: bool = False,
        reasoning: bool = False,
        tool_use: bool = False,
        auto_flush: bool = True,
        **options: Unpack[Options],
    ) -> TokenStream | EventStream:
        """Generate from what is buffered. It starts now, and what it gives can be read at leisure.

        It is `EventStream` with any of *decode*, *reasoning* and *tool_use*, otherwise `TokenStream`. It ends at a stop
        token, which is in no stream but stays buffered, after *max_tokens*, or at the model's longest context.
        What goes wrong comes with the call or with an item of the stream: `BadRequest`, `OutOfPages`,
        `DeadlineExceeded` after *timeout* seconds, `Cancelled` where its context is released or used otherwise.
        *auto_flush* opens the assistant's turn first; to go on with a turn that is open, say False.

        *logit_mask* says what may come. Run lengths, and what `Matcher.next_token_logit_mask` gives, are the same for
        each token; a Matcher or a Grammar is stepped along. A Grammar is compiled first, if it is new, and the first
        item says what is wrong with it. *options* are those of `inferlet.generation.Options`.
        """
        events = {"text": True, "reasoning": reasoning, "tool_use": tool_use}
        decoders = events if decode or reasoning or tool_use else None
        wait = self._start(sampler, max_tokens, logit_mask, auto_flush, decoders, False, options)
        stream = EventStream(self.model, wait, self) if decoders else TokenStream(self.model, wait, self)
        self._stream = weakref.ref(stream)
        return stream

    def generate_text(
        self,
        sampler: Sampler,
        *,
        max_tokens: int | None = None,
        logit_mask: LogitMask | None = None,
        auto_flush: bool = True,
        **options: Unpack[Options],
    ) -> str:
        """Generate to the end, as `generate` does: the text. The engine loops by itself; this is the fastest way."""
        events = {"text": True, "reasoning": False, "tool_use": False}
        wait = self._start(sampler, max_tokens, logit_mask, auto_flush, events, True, options)
        with EventStream(self.model, wait) as stream:  # Cancelled, it is closed at once.
            return stream.text()

    def _start(
        self,
        sampler: Sampler,
        max_tokens: int | None,
        logit_mask: LogitMask | None,
        auto_flush: bool,
        decode: dict[str, bool] | None,
        whole: bool,
        options: Options,
    ) -> int:
        request, give_back = request_of(self._host, sampler, max_tokens, logit_mask, decode, whole, options)
        try:
            if auto_flush:
                self.cue()
            else:
                self._use()
            return self._host.passes.generate(self._handle, pack_json(request))
        finally:
            give_back()


def _texts(tools: Iterable[Any]) -> list[str]:
    if isinstance(tools, str):
        raise TypeError("tools are a list of JSON texts, not one text")
    found = list(tools)
    for tool in found:
        if not isinstance(tool, str):
            raise TypeError(f"a tool is JSON text, not {type(tool).__name__}: say json.dumps(...)")
    return found
