"""The event loop of `async def` programs: asyncio, whose selector is the host's `waits.any`.

There are no sockets and no threads in the sandbox, and nothing here needs them. Under plain CPython any running loop
does; the host then calls back when a result is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, cast

from inferlet._host import Host, Native
from inferlet._host import host as host_in_use
from inferlet._packing import pack_ids, unpack_ids
from inferlet.errors import HostError

_FOR_EVER = -1.0


class Deadlock(RuntimeError):
    """Every task waits for another one, so that nothing can ever happen any more."""


class HostSelector:
    """What asyncio asks for events. An event is the number of a wait whose result is there."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[None]] = {}

    def select(self, timeout: float | None) -> list[int]:
        """Up to *timeout* seconds, None for ever."""
        if timeout is not None and timeout <= 0 and not self.waiting:
            return []
        if timeout is None and not self.waiting:
            raise Deadlock("every task of this program waits for another one: nothing can happen any more")
        seconds = _FOR_EVER if timeout is None else max(timeout, 0.0)
        try:
            return _any(self.waiting, seconds)
        except HostError:
            return [wait for wait in self.waiting if _answers(wait)]

    def close(self) -> None:
        self.waiting.clear()


def _any(waits: Iterable[int], seconds: float) -> list[int]:
    return unpack_ids(host_in_use().waits.any(pack_ids(waits), seconds)).tolist()


def _answers(wait: int) -> bool:
    """Whether to take *wait* answers at once; one that was dropped meanwhile answers with an error."""
    try:
        return bool(_any((wait,), 0.0))
    except HostError:
        return True


class HostLoop(asyncio.BaseEventLoop):
    """Tasks, timers, queues, task groups and timeouts as anywhere; no sockets, threads, signals or child processes."""

    def __init__(self) -> None:
        super().__init__()
        # BaseEventLoop's contract with its kinds: a selector, and the two methods below it.
        self._selector = HostSelector()

    def _process_events(self, event_list: list[int]) -> None:
        for wait in event_list:
            future = self._selector.waiting.pop(wait, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _write_to_self(self) -> None:
        """Wake the selector from another thread: there is none."""

    async def ready(self, wait: int) -> None:
        """One task at a time may wait for one wait."""
        future = self._selector.waiting[wait] = self.create_future()
        try:
            await future
        finally:
            # At once, and not by a callback: who gave up drops the wait next, and nobody may ask for it then.
            if self._selector.waiting.get(wait) is future:
                del self._selector.waiting[wait]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError("a sandboxed program has no threads: call the function itself")

    def close(self) -> None:
        super().close()
        self._selector.close()


async def ready(host: Host, wait: int) -> None:
    """Come back when `Waits.take` of *wait* would answer at once."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, HostLoop):
        await loop.ready(wait)
        return
    future: asyncio.Future[None] = loop.create_future()
    # Outside the sandbox every host can say when a result is there.
    cast(Native, host).when_ready(wait, lambda: _call_in(loop, future))
    await future


def _call_in(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    # From another thread. A loop that was closed meanwhile has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def install() -> None:
    """Have `asyncio.run` and `asyncio.new_event_loop` make this loop. For the sandbox, where no other works."""
    asyncio.new_event_loop = asyncio.events.new_event_loop = HostLoop
