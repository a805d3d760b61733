"""What a wait can be: a future, whose result is taken once, or the chunks of a generation."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bakehouse.engine.errors import Cancelled, EngineError
from bakehouse.engine.handle import Stream
from bakehouse.engine.params import Chunk
from bakehouse.inferlets.errors import InferletError

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.late import LateStream
    from bakehouse.inferlets.calls.waits import WaitTable

log = logging.getLogger(__name__)

T = TypeVar("T")


class NotYet:
    """What a wait answers that lost its item to another thread."""


NOT_YET: Final = NotYet()


class Wait(ABC):
    """One result that is there later."""

    is_stream = False

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether nothing can be taken from it any more."""

    @abstractmethod
    def listen(self, table: WaitTable, number: int) -> None:
        """Have *table* marked or touched whenever the wait may have become ready, now included."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether `take` answers at once. Does not block, takes nothing."""

    @abstractmethod
    def take(self) -> str | NotYet | None:
        """The next item, or None at the end. Does not wait. Raises what the work ended with."""

    @abstractmethod
    def drop(self) -> None:
        """Give it up: nobody will take from it. May be repeated, and comes before or after the end."""


def give_up(future: Future[Any]) -> None:
    """Cancel *future*, also one whose work runs, where that can be given up."""
    getattr(future, "give_up", future.cancel)()


class Once(Wait, Generic[T]):
    """A future. *tell* says its value as text; *undo* gets the value when nobody took it; *over* is called when it was
    taken or dropped."""

    def __init__(
        self,
        future: Future[T],
        tell: Callable[[T], str],
        undo: Callable[[T], None] | None = None,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._future = future
        self._tell = tell
        self._undo = undo
        self._when_over = over
        self._taken = False

    @property
    def over(self) -> bool:
        return self._taken

    def listen(self, table: WaitTable, number: int) -> None:
        self._future.add_done_callback(lambda _: table.touch(number))

    def ready(self) -> bool:
        return self._future.done()

    def take(self) -> str:
        if self._taken:
            raise Cancelled("its result was taken already")
        self._taken = True
        self._when_over()
        return self._tell(result_of(self._future))

    def drop(self) -> None:
        if self._taken:
            return
        self._taken = True
        self._when_over()
        give_up(self._future)
        if self._undo is not None:
            self._future.add_done_callback(self._put_back)

    def _put_back(self, future: Future[T]) -> None:
        if self._undo is None or future.cancelled() or future.exception() is not None:
            return
        try:
            self._undo(future.result())
        except (EngineError, InferletError) as error:
            log.warning("a result that nobody took is lost: %s", error)


def result_of(future: Future[T]) -> T:
    """Of a future that is done. Raises `Cancelled` in place of the standard library's own error."""
    try:
        return future.result()
    except CancelledError:
        raise Cancelled("it was given up") from None


class Flow(Wait):
    """The chunks of a generation. *whole*: one item for all that were not taken yet, at the end."""

    is_stream = True

    def __init__(self, stream: Stream | LateStream, tell: Callable[[list[Chunk]], str], whole: bool) -> None:
        self._stream = stream
        self._tell = tell
        self._whole = whole
        self._chunks: list[Chunk] = []

    def listen(self, table: WaitTable, number: int) -> None:
        bell = _AtTheEnd(self._stream, table) if self._whole else table
        self._stream.listen(bell, partial(table.mark, number))
        if self.ready():
            table.touch(number)

    def gather(self) -> None:
        """Be whole from now on."""
        self._whole = True

    def ready(self) -> bool:
        return self._stream.complete if self._whole else self._stream.ready

    def take(self) -> str | NotYet | None:
        while not self._stream.ended:
            chunk = self._stream.poll()
            if chunk is None:  # another thread was quicker, or made it whole meanwhile
                return NOT_YET
            self._chunks.append(chunk)
            if not self._whole:
                break
        chunks, self._chunks = self._chunks, []
        if chunks:
            return self._tell(chunks)
        return None if self._stream.ended else NOT_YET

    @property
    def over(self) -> bool:
        return self._stream.ended

    def drop(self) -> None:
        self._stream.close()


class _AtTheEnd:
    """Rings at a table when a generation is complete, and not for each of its tokens."""

    def __init__(self, stream: Stream | LateStream, table: WaitTable) -> None:
        self._stream = stream
        self._table = table

    def ring(self, wake: Callable[[], None]) -> None:
        if self._stream.complete:
            self._table.ring(wake)

    def flush(self) -> None:
        if self._stream.complete:
            self._table.flush()
