"""The executor of ``build`` tasks: few at a time, each ending with its version stored as ready or failed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from bakehouse.build.builder import Step
from bakehouse.build.process import BuildFailed, Log
from bakehouse.core.app import Version
from bakehouse.core.errors import BakehouseError
from bakehouse.core.executor import (
    Call,
    Capacity,
    ExecutorEvent,
    Failure,
    Finished,
    Logged,
    Lost,
    Moved,
    Progressed,
    Returned,
    Sink,
)
from bakehouse.core.task import TaskStatus


class Builds(Protocol):
    """What builds: `Builder`, or one that knows more kinds of packages."""

    def sweep(self) -> None: ...

    async def build(self, version: Version, log: Log, step: Step) -> Version: ...


class BuildExecutor:
    """Drives *builder*. ``finish`` stores a version's outcome and has returned before the task's outcome is told."""

    def __init__(
        self,
        builder: Builds,
        finish: Callable[[Version], Awaitable[object]],
        *,
        parallel: int = 2,
        timeout: float = 1800.0,
    ) -> None:
        self._builder = builder
        self._finish = finish
        self._parallel = parallel
        self._timeout = timeout
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._wake: Callable[[], None] = lambda: None

    def capacity(self, lane: str) -> Capacity:
        """Builds of all lanes share one number of places."""
        del lane
        return Capacity(0 if self._stopping else max(0, self._parallel - len(self._running)))

    def on_capacity(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def start(self, call: Call, sink: Sink) -> None:
        work = asyncio.create_task(self._run(call, sink), name=f"build {call.task.id}")
        self._running[call.task.id] = work
        work.add_done_callback(lambda _: self._ended(call.task.id))

    def _ended(self, task_id: str) -> None:
        del self._running[task_id]
        self._wake()

    def send(self, task_id: str, item: dict[str, Any]) -> bool:
        """Builds read no inbox."""
        del task_id, item
        return False

    def cancel(self, task_id: str, *, grace: float | None = None, reason: str = "cancelled") -> None:
        """Stop a build at once: it has nothing that a grace time would save, whatever the reason."""
        del grace, reason
        work = self._running.get(task_id)
        # Once only: a second one would hit the storing of the outcome.
        if work is not None and not work.cancelling():
            work.cancel()

    def end_session(self, session_id: str) -> None:
        """Builds belong to no session."""
        del session_id

    async def start_up(self) -> None:
        await asyncio.to_thread(self._builder.sweep)

    async def shut_down(self, grace: float) -> None:
        self._stopping = True
        if not self._running:
            return
        _, left = await asyncio.wait(self._running.values(), timeout=grace)
        for work in left:
            if not work.cancelling():
                work.cancel()
        if left:
            await asyncio.wait(left)

    async def _run(self, call: Call, sink: Sink) -> None:
        try:
            outcome = await self._outcome(call, sink)
        except Exception as wrong:
            # The outcome could not be stored: the next attempt finds the finished environment in the cache.
            outcome = Lost(f"the build's outcome could not be stored: {wrong}", code="not_stored")
        sink(outcome)

    async def _outcome(self, call: Call, sink: Sink) -> ExecutorEvent:
        version = call.version
        if version is None:
            return Finished(failure=Failure("a build needs a version", code="build_failed"))
        try:
            built = await self._build(version, sink)
            await self._finish(built)
            return Finished(output=summary(built))
        except asyncio.CancelledError:
            if self._stopping:
                return Returned("the server stops; the build begins again at its next start")
            await self._finish(replace(version, status="failed", error="the build was cancelled"))
            return Finished(cancelled=True)
        except Exception as wrong:
            failure = failure_of(wrong, self._timeout)
            await self._finish(replace(version, status="failed", error=failure.message))
            return Finished(failure=failure)

    async def _build(self, version: Version, sink: Sink) -> Version:
        def log(stream: str, lines: list[str]) -> None:
            sink(Logged(stream, lines))

        def step(current: int, total: int, message: str) -> None:
            sink(Progressed(current, total, message))

        sink(Moved(TaskStatus.RUNNING))
        async with asyncio.timeout(self._timeout):
            return await self._builder.build(version, log, step)


def summary(version: Version) -> dict[str, Any]:
    """The output of a build task."""
    return {
        "version_id": version.id,
        "short_id": version.short_id,
        "digest": version.digest,
        "label": version.label,
        "functions": [function.name for function in version.functions],
        "default_function": version.default_function,
    }


def failure_of(wrong: Exception, timeout: float) -> Failure:
    """Why a build failed, in one short line, with what the tool or the app said as the traceback."""
    if isinstance(wrong, BuildFailed):
        return Failure(wrong.detail, code=wrong.code, traceback=wrong.traceback)
    if isinstance(wrong, BakehouseError):
        return Failure(wrong.detail, code="build_failed", fields=wrong.fields)
    if isinstance(wrong, TimeoutError):
        return Failure(f"the build took longer than {timeout:g} s", code="build_failed")
    text = "".join(traceback.format_exception(wrong))
    return Failure(f"the build failed: {type(wrong).__name__}: {wrong}"[:300], code="build_failed", traceback=text)
