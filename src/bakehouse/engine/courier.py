"""What the loop carries: jobs, and the thread that hands out their results."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from typing import Protocol

from bakehouse.engine.errors import EngineError
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.passes import Outcome, Pass

log = logging.getLogger(__name__)


class Notifier(Protocol):
    """Wakes the readers of one event loop; hashable, so that a step flushes each once."""

    def flush(self) -> None:
        """Wake them. Called from the loop's thread; must not block."""


class Job(ABC):
    """Work of one caller on at most one context: a chain of passes, one at a time in the planner."""

    context: Context | None = None
    #: The pass that the planner has, or None between passes and before the first one.
    current: Pass | None = None
    ended = False
    #: Whether more may follow a pass, so that cancelling it between two has a meaning.
    goes_on = False
    #: Whether its result will likely be answered with the next job, at once.
    asks_again = False
    #: Whether that may be several jobs, of branches that begin here.
    branches = False

    @abstractmethod
    def begin(self) -> Pass | None:
        """The first pass; None when there is nothing to run. Lock held. Raises `EngineError` to end here."""

    @abstractmethod
    def settle(self, outcome: Outcome) -> None:
        """Bring the context's buffer in line with what the commit did to its KV. Lock held, cannot fail."""

    @abstractmethod
    def proceed(self, outcome: Outcome) -> Pass | None:
        """The next pass, or None at the end. On the loop's thread, no lock held. Raises `EngineError` to end badly."""

    @abstractmethod
    def end(self, error: EngineError | None) -> None:
        """The last word: lock held. Restore or trim the context; what is promised is kept in `deliver`."""

    @abstractmethod
    def deliver(self) -> Notifier | None:
        """Hand out what `proceed` or `end` prepared. On the courier's thread alone, no lock held, must not block. The
        notifier is flushed when all jobs of the step were asked."""


class Courier:
    """One thread that hands out what jobs have prepared, step by step."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"courier-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, jobs: list[Job]) -> None:
        """Have *jobs* deliver, in order, and then each of their notifiers be flushed once."""
        if jobs:
            self._queue.put(jobs)

    def stop(self) -> None:
        """Hand out what was sent, then end. May be repeated."""
        self._queue.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (jobs := self._queue.get()) is not None:
            for notifier in {_delivered(job) for job in jobs}:
                if notifier is not None:
                    notifier.flush()


def _delivered(job: Job) -> Notifier | None:
    try:
        return job.deliver()
    except Exception:  # One job's fault must not silence the others; `deliver` itself tells its reader.
        log.exception("a job could not hand out its results")
        return None
