"""Ends a process whose model hangs or has given up, so that whoever keeps the process starts it again.

A step that never returns, in a device's driver maybe, would hold all that wait for it for ever, while the rest of the
process answers as if all were well.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

#: Seconds that one step of a model, or one change between two steps, may take.
PATIENCE = 900.0
#: Seconds between two looks.
PERIOD = 2.0
#: With which the process ends.
STATUS = 75


def give_up(text: str) -> NoReturn:
    """End this process at once, saying where each of its threads was."""
    print(text, file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    # Not in order: what hangs could be waited for only by hanging, too.
    os._exit(STATUS)


class Watchdog:
    """Asks *trouble* from a thread of its own: what is wrong, or nothing, where a step may take so many seconds."""

    def __init__(
        self, trouble: Callable[[float], str], patience: float = PATIENCE, end: Callable[[str], object] = give_up
    ) -> None:
        self._trouble, self._patience, self._end = trouble, patience, end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking. May be repeated."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(self._patience / 10, PERIOD)):
            text = self._trouble(self._patience)
            if text:
                self._end(f"{text}; this process gives up")
                return
