"""A real executor with real children, and what a test needs to talk about their calls."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bakehouse.core.app import Limits, Manifest, Version
from bakehouse.core.executor import Call, ExecutorEvent, Finished, Logged, Lost, Moved, Returned
from bakehouse.core.ids import new_id
from bakehouse.core.task import Task, TaskStatus
from bakehouse.launch import Environment, Hooks, LaunchSettings, LocalExecutor
from bakehouse.launch.process import MARKER
from bakehouse.launch.surroundings import marker

_INFSH = Path(__file__).parents[2] / "sdk" / "infsh" / "src" / "infsh"
OUTCOMES = (Finished, Lost, Returned)

PRELUDE = """
import asyncio, ctypes, json, os, signal, subprocess, sys, threading, time
from infsh import BaseApp, BaseAppInput, BaseAppOutput, File

class In(BaseAppInput):
    text: str = ""
    number: float = 0

class Out(BaseAppOutput):
    text: str = ""
"""

ECHO = """
class App(BaseApp):
    async def run(self, data: In) -> Out:
        return Out(text=data.text)
"""


@dataclass
class Watched:
    """One call's events; ``outcome`` is the last one."""

    task: Task
    events: list[ExecutorEvent] = field(default_factory=list)
    _waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)

    def sink(self, event: ExecutorEvent) -> None:
        assert self.outcome is None, f"{event} came after the outcome"
        self.events.append(event)
        for ready, future in self._waiters:
            if not future.done() and ready():
                future.set_result(None)

    @property
    def outcome(self) -> Finished | Lost | Returned | None:
        return next((event for event in self.events if isinstance(event, OUTCOMES)), None)

    @property
    def statuses(self) -> list[TaskStatus]:
        return [event.status for event in self.events if isinstance(event, Moved)]

    @property
    def lines(self) -> list[str]:
        return [line for event in self.events if isinstance(event, Logged) for line in event.lines]

    async def until(self, ready: Callable[[], bool], timeout: float = 30) -> None:
        """Wait for an event after which *ready* is true."""
        if ready():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((ready, future))
        try:
            await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise AssertionError(f"not after {timeout} s; so far: {self.events[-20:]}") from None

    async def running(self) -> None:
        """Wait until the call executes."""
        await self.until(lambda: TaskStatus.RUNNING in self.statuses or self.outcome is not None)
        assert TaskStatus.RUNNING in self.statuses, self.events

    async def printed(self, line: str) -> None:
        """Wait until *line* was logged."""
        await self.until(lambda: line in self.lines)

    async def end(self, timeout: float = 30) -> Finished | Lost | Returned:
        """Wait for the outcome."""
        await self.until(lambda: self.outcome is not None, timeout)
        assert self.outcome is not None
        return self.outcome

    async def output(self) -> Any:
        """The output of a call that must succeed."""
        outcome = await self.end()
        assert isinstance(outcome, Finished), outcome
        assert outcome.failure is None, outcome.failure
        assert not outcome.cancelled
        return outcome.output


class Bench:
    """An executor, the apps written for it, and the calls that were made."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir(exist_ok=True)
        (self.home / "bakehouse.db").write_text("everybody's tasks")
        self.lost_sessions: list[tuple[str, str]] = []
        self.instance_lines: list[str] = []
        self._said = asyncio.Event()
        self.secrets: dict[str, str] = {}
        defaults: dict[str, Any] = {"max_instances": 4, "cancel_grace": 1.0, "term_grace": 1.0, "stop_grace": 2.0}
        self.settings = LaunchSettings(self.home, **(defaults | settings))
        hooks = Hooks(
            prepare=self._prepare,
            environ=self._environ,
            session_lost=lambda session, reason: self.lost_sessions.append((session, reason)),
            instance_log=self._instance_log,
        )
        self.executor = LocalExecutor(self.settings, hooks)

    def _instance_log(self, instance: str, version: str, stream: str, lines: list[str]) -> None:
        self.instance_lines.extend(lines)
        self._said.set()

    async def instance_said(self, line: str) -> None:
        """Wait until *line* was printed to no call."""
        while line not in self.instance_lines:
            self._said.clear()
            await self._said.wait()

    async def _prepare(self, version: Version) -> Environment:
        return Environment(Path(sys.executable), self.home / "versions" / version.id / "app")

    async def _environ(self, owner_id: str, version: Version) -> dict[str, str]:
        return {**version.manifest.env, **self.secrets}

    def app(self, source: str, **manifest: Any) -> Version:
        """A version whose ``inference.py`` is the prelude and *source*."""
        version_id = new_id("ver")
        folder = self.home / "versions" / version_id / "app"
        folder.mkdir(parents=True)
        # The tests' environment has the SDK in its checkout, which an instance may not read.
        shutil.copytree(_INFSH, folder / "infsh", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "inference.py").write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(source))
        manifest.setdefault("limits", Limits())
        return Version(
            version_id, "app_1", "own_1", version_id[-8:], "0" * 64, "ready", 0, "file_1", Manifest("probe", **manifest)
        )

    def call(
        self,
        version: Version,
        function: str = "run",
        *,
        session: str | None = None,
        setup: dict[str, Any] | None = None,
        **input_: Any,
    ) -> Watched:
        """Start a call; more of the same version and setup share instances."""
        lane = f"app/own_1/{version.id}/{abs(hash(str(setup)))}/0/-" + (f"/session/{session}" if session else "")
        task_id = new_id("task")
        task = Task(
            task_id, "app", "own_1", "user_1", task_id, TaskStatus.SCHEDULED, lane, function,
            orjson.dumps(input_).decode(), 0, 0, attempt=1, version_id=version.id, session_id=session,
            setup=orjson.dumps(setup).decode() if setup is not None else None,
        )  # fmt: skip
        watched = Watched(task)
        self.executor.start(Call(task, 1, version, {"owner_id": "own_1"}), watched.sink)
        return watched

    async def warm(self, version: Version, **input_: Any) -> None:
        """Call until the instance is known to be quick, so that more calls are put behind a running one."""
        for _ in range(50):
            await self.call(version, **input_).output()
            if self.executor.capacity(self.lane(version)).prefetch:
                return
        raise AssertionError("the instance does not become quick")

    def lane(self, version: Version) -> str:
        return f"app/own_1/{version.id}/{abs(hash(str(None)))}/0/-"

    def leftovers(self) -> list[str]:
        """Processes and directories of instances that are still there."""
        wanted = f"{MARKER}={marker(self.home)}".encode()
        found = [f"directory {path}" for path in (self.home / "instances").iterdir()]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if wanted in (entry / "environ").read_bytes():
                        found.append(f"process {entry.name}")
                except OSError:
                    continue
        return found


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@asynccontextmanager
async def bench(root: Path, **settings: Any) -> AsyncIterator[Bench]:
    """A started bench; at the end everything it began must be gone."""
    before = _descriptors()
    made = Bench(root, **settings)
    await made.executor.start_up()
    try:
        yield made
    finally:
        await made.executor.shut_down(0.0)
    assert made.leftovers() == []
    made.executor._pool.check_integrity()
    assert _descriptors() <= before + 1, "descriptors leaked"
