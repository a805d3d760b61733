"""Releases that come out of the blue: a program in this process frees what it no longer needs in finalizers, and Python
runs those on any thread, in the midst of anything; on the engine's own thread too, while that holds its lock.

So a release runs at once only on a thread that the program calls from, and outside any other call; else a janitor's
thread does it soon. Sandboxed programs need none of this: their finalizers run in their own interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.errors import InferletError

Call = Callable[[], Any]

#: What finalizers call.
RELEASES = frozenset(
    {"Waits.drop", "Contexts.release", "Grammars.release", "Grammars.release_mask", "Decoders.release"}
)


class _Thread(threading.local):
    """Of each thread: whether a program calls from it, and how many calls deep it is, of whatever program."""

    calls = False
    depth = 0


_here = _Thread()


class Janitor:
    """Runs the calls of one program. `stop` ends its thread; releases are then nothing, because all was freed."""

    def __init__(self) -> None:
        # Its `put` may interrupt itself, unlike that of any other queue.
        self._later: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=self._run, name="janitor", daemon=True).start()

    def call(self, name: str, call: Call) -> Any:
        """*call*, which is the call *name*; its value, or None where it was put off."""
        if name in RELEASES and (_here.depth or not _here.calls):
            self._later.put(call)
            return None
        _here.calls = True
        _here.depth += 1
        try:
            return call()
        finally:
            _here.depth -= 1

    def stop(self) -> None:
        self._later.put(None)

    def _run(self) -> None:
        while (call := self._later.get()) is not None:
            # Released twice, or with the program's end: nobody is there to be told.
            with suppress(EngineError, InferletError):
                call()
