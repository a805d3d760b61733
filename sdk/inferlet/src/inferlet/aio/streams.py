"""What a generation gives, piece by piece.

It runs in the engine from the call of `generate` on, so that several that were started run in one batch. Its context
follows the reader: closed early, the context keeps what was read and nothing else.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from inferlet.aio._waits import Turn, take
from inferlet.errors import Cancelled, HostError
from inferlet.events import AnyEvent, Event
from inferlet.generation import Item, TokenLogprob
from inferlet.model import Model

if TYPE_CHECKING:
    # unasync: leave out
    from collections.abc import Generator

    # unasync: go on
    from typing_extensions import Self


class Stream:
    """What both kinds have in common. As a context manager it is closed when the block ends."""

    def __init__(self, model: Model, wait: int, of: object = None) -> None:
        #: Why it ended: stop (a stop token, a stop text, the end of a grammar) or length. None before the end.
        self.finish: str | None = None
        #: Of the tokens read so far, if they were asked for.
        self.logprobs: list[TokenLogprob] = []
        #: The tokens read so far.
        self.token_ids: list[int] = []
        self._model = model
        # The context, which is not to be freed under a reader who has kept the stream alone.
        self._of = of
        self._host = model._host
        self._wait: int | None = wait
        self._cut = False
        self._turn = Turn()

    def close(self) -> None:
        """End the generation. Its context is as if it had stopped after what was read. May be repeated."""
        wait, self._wait = self._wait, None
        if wait is not None:
            self._host.waits.drop(wait)

    def cut(self) -> None:
        """Close it because its context is used otherwise: whoever reads on is told."""
        if self._wait is not None:
            self._cut = True
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _item(self) -> Item | None:
        async with self._turn:
            text = await self._taken()
        if self._cut:
            raise Cancelled("this generation ended when its context was used otherwise; read it to its end before")
        if text is None:
            self._wait = None
            return None
        item = Item.parse(text)
        self.logprobs += item.logprobs
        self.token_ids += item.tokens
        if item.finish is not None:
            self.finish, self._wait = item.finish, None
        return item

    def _gather(self) -> None:
        """Have what is left come in one item, which costs one call of the host."""
        if self._wait is not None:
            self._host.passes.whole(self._wait)

    async def _taken(self) -> str | None:
        if self._wait is None:
            return None
        try:
            return await take(self._host, self._wait, keep=True)
        except HostError:  # With a generation that failed, its number is gone.
            closed, self._wait = self._wait is None, None
            if closed:  # Another task did that meanwhile.
                return None
            raise

    def __del__(self) -> None:
        # Where the host is gone, or the constructor failed, there is nothing to end.
        with contextlib.suppress(Exception):
            self.close()

    # unasync: leave out
    def __await__(self) -> Generator[None, None, Self]:
        """``await ctx.generate(...)`` is the stream too, at once."""
        yield from ()
        return self

    # unasync: go on


class TokenStream(Stream):
    """Lists of ids as the model writes them: one each, or several at once. Stop tokens are in none."""

    def __aiter__(self) -> AsyncIterator[list[int]]:
        return self

    async def __anext__(self) -> list[int]:
        while (item := await self._item()) is not None:
            if item.tokens:
                return item.tokens
        raise StopAsyncIteration

    async def tokens(self) -> list[int]:
        """Read it to its end: every id of the whole generation. May be repeated."""
        self._gather()
        while await self._item() is not None:
            pass
        return list(self.token_ids)

    async def text(self) -> str:
        """Their text, decoded in one piece, with special tokens in it. May be repeated."""
        return self._model.tokenizer().decode(await self.tokens())

    async def collect_tokens(self) -> list[int]:
        """The older name of `tokens`."""
        return await self.tokens()

    async def collect_text(self) -> str:
        """The older name of `text`."""
        return await self.text()


class EventStream(Stream):
    """Events, in order; the last one is `Event.Done`, and there is one of it."""

    def __init__(self, model: Model, wait: int, of: object = None) -> None:
        super().__init__(model, wait, of)
        self._events: deque[AnyEvent] = deque()
        self._text = ""

    def __aiter__(self) -> AsyncIterator[AnyEvent]:
        return self

    async def __anext__(self) -> AnyEvent:
        while not self._events:
            item = await self._item()
            if item is None:
                raise StopAsyncIteration
            self._events += item.events
        event = self._events.popleft()
        if isinstance(event, Event.Done):
            self._text = event.text
        return event

    async def text(self) -> str:
        """Read it to its end: the visible text of the whole generation. May be repeated."""
        self._gather()
        async for _ in self:
            pass
        return self._text

    async def collect_text(self) -> str:
        """The older name of `text`."""
        return await self.text()
