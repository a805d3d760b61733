"""One running program as its host sees it, and the guard around its outlet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from bakehouse.inferlets.base import Failure, Launch, Outcome, Outlet
from bakehouse.inferlets.errors import NotRunning

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest
    from bakehouse.inferlets.programs import Program

log = logging.getLogger(__name__)

#: Why an instance ends that somebody ended.
TERMINATED = Failure("cancelled", "it was terminated")


class Instance:
    """Thread-safe. `InferletHost` makes them. *on_terminate* is called where no thread of the host looks after one."""

    def __init__(
        self,
        launch: Launch,
        guest: Guest,
        outlet: GuardedOutlet,
        on_terminate: Callable[[Instance], None] = lambda _: None,
    ) -> None:
        self.launch = launch
        self.guest = guest
        self.outlet = outlet
        self._on_terminate = on_terminate
        #: Seconds of `time.monotonic`.
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        #: What it runs; None for one outside the sandbox.
        self.program: Program | None = None
        #: Those that it spawned and that run; only `Admission` touches it. None when it takes no more of them.
        self.children: dict[str, Instance] | None = {}
        self._over = threading.Event()
        self._guard = threading.Lock()

    @property
    def deadline(self) -> float:
        """When its time is over, in seconds of `time.monotonic`."""
        return self.started + self.launch.limits.wall

    def send(self, text: str) -> None:
        """A message from its client. Raises `NotRunning`, or `Refused` when its queue is full."""
        self._check_running()
        self.guest.deliver(text)

    def send_file(self, data: bytes) -> None:
        """The same for a file."""
        self._check_running()
        self.guest.deliver_file(data)

    def terminate(self, failure: Failure = TERMINATED) -> None:
        """End it soon, with *failure*: at once where it waits, at the next tick where it computes. May be repeated."""
        if self.outcome is None:
            self.guest.end(failure)
            self._on_terminate(self)

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """How it ended, once all of it is over; None after *timeout* seconds."""
        return self.outcome if self._over.wait(timeout) else None

    # Of the host

    def conclude(self, outcome: Outcome) -> bool:
        """It ended so. False where it ended before."""
        with self._guard:
            first, self.outcome = self.outcome is None, self.outcome or outcome
            return first

    def be_over(self) -> None:
        """Nothing of it is left."""
        self._over.set()

    def _check_running(self) -> None:
        if self.outcome is not None:
            raise NotRunning(f"instance {self.launch.id} has ended")


class GuardedOutlet(Outlet):
    """An outlet that gets one call at a time, and none after its end. What it raises is logged, and harms nobody."""

    def __init__(self, outlet: Outlet, id: str) -> None:
        self._outlet: Outlet | None = outlet
        self._id = id
        self._guard = threading.Lock()

    def message(self, text: str) -> None:
        self._pass("message", text)

    def file(self, data: bytes) -> None:
        self._pass("file", data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._pass("output", stream, text)

    def ended(self, outcome: Outcome) -> None:
        self._pass("ended", outcome, last=True)

    def _pass(self, name: str, *values: object, last: bool = False) -> None:
        with self._guard:
            outlet = self._outlet
            if last:
                self._outlet = None
            if outlet is not None:
                try:
                    getattr(outlet, name)(*values)
                except Exception:
                    log.exception("what instance %s gave was lost: %s", self._id, name)
