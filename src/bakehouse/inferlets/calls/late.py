"""A generation that has to wait for something before it can start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bakehouse.engine.errors import EngineError
from bakehouse.engine.handle import Stream
from bakehouse.engine.params import Chunk
from bakehouse.engine.streams import Bell
from bakehouse.inferlets.calls.results import give_up, result_of
from bakehouse.inferlets.errors import InferletError

log = logging.getLogger(__name__)


class LateStream:
    """What a reader does with a `Stream`, from now on; *start* makes it when *before* is over.

    What either of them raises is what the reader takes.
    """

    def __init__(self, before: Future[Any], start: Callable[[], Stream]) -> None:
        self._before, self._start = before, start
        self._stream: Stream | None = None
        self._error: EngineError | InferletError | None = None
        self._told = self._closed = False
        self._listener: tuple[Bell, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        before.add_done_callback(self._go)

    @property
    def ready(self) -> bool:
        """As `Stream.ready`."""
        return self._error is not None or (self._stream is not None and self._stream.ready)

    @property
    def complete(self) -> bool:
        """As `Stream.complete`."""
        return self._error is not None or (self._stream is not None and self._stream.complete)

    @property
    def ended(self) -> bool:
        """As `Stream.ended`."""
        return self._told or (self._stream is not None and self._stream.ended)

    def listen(self, bell: Bell, wake: Callable[[], None]) -> None:
        """As `Stream.listen`."""
        with self._lock:
            self._listener = bell, wake
            if self._stream is not None:
                self._stream.listen(bell, wake)

    def poll(self) -> Chunk | None:
        """As `Stream.poll`."""
        if self._error is not None:
            self._told = True
            raise self._error
        return None if self._stream is None else self._stream.poll()

    def close(self) -> None:
        """As `Stream.close`; what has not started will not."""
        with self._lock:
            self._closed = True
            stream = self._stream
        if stream is None:
            give_up(self._before)
        else:
            stream.close()

    def _go(self, before: Future[Any]) -> None:
        """On the thread that did the work before, or of whoever gave it up."""
        try:
            result_of(before)
            self._begin()
        except (EngineError, InferletError) as error:
            self._error = error
        except Exception as error:
            log.exception("a generation could not start")
            self._error = InferletError(f"the host could not do it: {type(error).__name__}: {error}")
        with self._lock:
            listener = self._listener
        if listener is not None:  # also of chunks that came before it listened
            bell, wake = listener
            bell.ring(wake)
            bell.flush()

    def _begin(self) -> None:
        with self._lock:
            if self._closed:
                return
            stream = self._start()
            if self._listener is not None:
                stream.listen(*self._listener)
            self._stream = stream
