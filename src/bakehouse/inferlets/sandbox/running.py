"""One guest on its thread: what it has used up, and why it is to end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from wasmtime import WasmtimeError

from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.errors import Ended, Refused

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest
    from bakehouse.inferlets.sandbox.screen import Screen

Output = Callable[[Literal["stdout", "stderr"], str], None]

log = logging.getLogger(__name__)


def over(limit: str, text: str) -> Failure:
    return Failure("limit_exceeded", f"{limit}: {text}", limit)


class Running:
    """What belongs to one guest. Made and used on the guest's own thread."""

    def __init__(self, guest: Guest, payload: str = "") -> None:
        #: The program's own code, packed, where its component is shared.
        self.payload = payload
        self.guest, self.calls, self.limits = guest, guest.calls, guest.launch.limits
        #: Bytes of the longest text that is worth looking at: a file, packed, where every byte takes two.
        self.longest = 2 * max(self.limits.file, self.limits.message)
        self.screen: Screen
        #: The status with which it ended itself.
        self.exited: int | None = None
        self.things: dict[int, Any] = {}
        #: What must not be kept from others any longer.
        self.at_end: dict[Any, Callable[[], object]] = {}
        self._last_thing = 0
        #: Processor time of this thread that its family was charged with.
        self._charged = time.thread_time()

    # Things that a guest has handles to.

    def keep(self, thing: Any) -> int:
        """The number of a thing from now on. Raises `Ended` where there are too many."""
        if len(self.things) >= self.limits.waits:
            self.end(over("waits", f"more than {self.limits.waits} handles at one time"))
            raise Ended("too many handles")
        self._last_thing += 1
        self.things[self._last_thing] = thing
        return self._last_thing

    def close(self) -> None:
        """Let go of all of them. What they stand for in `Calls` is the guest's to free."""
        for call in self.at_end.values():
            call()
        self.at_end.clear()
        self.things.clear()
        self._compute()

    # Why it is to end.

    @property
    def failure(self) -> Failure | None:
        return self.guest.failure

    def end(self, failure: Failure) -> None:
        self.guest.end(failure)

    def exit(self, status: int) -> None:
        """The guest ends itself. Raises `Ended`."""
        self.exited = status
        raise Ended("it exited")

    def over_time(self) -> bool:
        """Whether the guest must end now. Charges its family the time that its thread has computed."""
        if self._compute() > self.limits.cpu and self.guest.failure is None:
            self.end(over("cpu", f"it computed for more than {self.limits.cpu:g} s, with all that it spawned"))
        return self.guest.failure is not None

    def _compute(self) -> float:
        """Processor time that its family has had, until now."""
        now = time.thread_time()
        used, self._charged = now - self._charged, now
        return self.guest.family.compute(used)

    def crashed(self, error: BaseException) -> str:
        """What stops the guest after *error* escaped a host call, which is our fault unless it is ending anyway."""
        if isinstance(error, Ended):
            return "ended"
        detail = getattr(error, "detail", None)
        if isinstance(error, WasmtimeError):
            self.end(Failure("crashed", f"what it passed to the host: {error}"))
        elif detail is None:
            log.error("a host call failed", exc_info=error, extra={"instance": self.guest.launch.id})
            self.end(Failure("internal", "an error inside the server; its log has more"))
        else:
            limit = error.field if isinstance(error, Refused) else None
            self.end(Failure(getattr(error, "code", "internal"), detail, limit))
        return "ended"


class Ticker:
    """Moves an engine's epoch on, *period* seconds apart, while there are guests."""

    def __init__(self, tick: Callable[[], None], period: float = 0.02) -> None:
        self._tick, self._period = tick, period
        self._changed = threading.Condition()
        self._guests, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="inferlet-ticker", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        with self._changed:
            self._guests += 1
            if self._guests == 1:
                self._changed.notify()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._guests -= 1

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._guests or self._closed)
                if self._closed:
                    return
            time.sleep(self._period)
            self._tick()
