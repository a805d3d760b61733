"""An engine in a process of its own: started, watched, started again after a crash, stopped. No torch in this process.

A crash fails what the engine was doing with `EngineLost`, which says how it ended and what it said last; sessions end
with it. New ones wait for the next process. It is started again after a pause that doubles with each crash, until there
were too many in a row: then every call says so, until `start` is called again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from bakehouse.engine.channel import Why
from bakehouse.engine.errors import EngineError, EngineLost
from bakehouse.engine.face import AsyncEngine, AsyncSession
from bakehouse.engine.launching import Config
from bakehouse.engine.params import ModelInfo
from bakehouse.engine.remote import RemoteEngine
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.wire import read_error

_LAST_LINES = 24
_LINE_CHARACTERS = 400
_EXIT_PATIENCE = 5.0


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # for the next attempt after a crash
    GAVE_UP = "gave_up"


@dataclass(frozen=True, slots=True)
class Policy:
    """Times are seconds. The count of crashes begins anew when a process has lived for ``steady``."""

    start_timeout: float = 900.0
    drain: float = 10.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    crashes: int = 5
    steady: float = 300.0


#: Told of each change: the new state, and what led to it.
OnState = Callable[[State, str], None]


def _nobody(_state: State, _text: str) -> None:
    pass


def _to_stderr(line: str) -> None:
    print(f"engine: {line}", file=sys.stderr)


class EngineProcess(AsyncEngine):
    """The face of an engine that this object keeps running. Used from one event loop."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        policy: Policy | None = None,
        *,
        on_state: OnState = _nobody,
        on_line: Callable[[str], None] = _to_stderr,
        module: str = "bakehouse.engine",
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """``on_line`` gets what the engine writes to its stdout and stderr.

        ``module`` is what the process runs: it may hold more than an engine, and is told *more* of it.
        """
        self.policy = policy or Policy()
        self.state = State.STOPPED
        self._config = Config(specs=tuple(specs), drain=self.policy.drain, more=more or {})
        self._module = module
        self._on_state, self._on_line = on_state, on_line
        self._child: _Child | None = None
        self._engine: RemoteEngine | None = None
        self._changed = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._crashes = 0
        self._last = ""

    # The face

    async def models(self) -> list[ModelInfo]:
        return await (await self._ready()).models()

    async def open(self, model: str, owner: str, program: str = "") -> AsyncSession:
        return await (await self._ready()).open(model, owner, program)

    async def stats(self, model: str) -> dict[str, Any]:
        return await (await self._ready()).stats(model)

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises what its models refuse, without another attempt."""
        if self.state in (State.READY, State.STARTING, State.WAITING):
            return
        self._crashes = 0
        await self._launch()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Let it finish what runs, for ``policy.drain`` seconds, and end it. May be repeated."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._become(State.STOPPED, "")
        child, self._child = self._child, None
        if child is not None:
            await child.stop(self.policy.drain + _EXIT_PATIENCE)
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    def kill(self, reason: str) -> None:
        """End its process at once. What follows is what follows a crash; *reason* is told with it."""
        if self._child is not None:
            self._child.kill(reason)

    @property
    def pid(self) -> int | None:
        """The process that serves now."""
        return None if self._child is None or self.state != State.READY else self._child.process.pid

    async def beside(self, name: str) -> tuple[Path, Why]:
        """Where the process of now listens under *name*, beside the engine's own socket, and what tells how it ended.

        Waits while it starts. Raises `EngineLost` where it will not.
        """
        while True:
            await self._ready()
            if self._child is not None:
                return self._child.socket.with_name(name), self._child.why

    # Keeping it alive

    async def _ready(self) -> RemoteEngine:
        """The engine as it is now; waits while it starts. Raises `EngineLost` where it will not."""
        while True:
            changed = self._changed
            if self.state == State.READY:
                engine = await self._connected()
                if engine is not None:
                    return engine
            elif self.state not in (State.STARTING, State.WAITING):
                raise EngineLost(self._why_not())
            await changed.wait()

    async def _connected(self) -> RemoteEngine | None:
        """A connection to the process: another one where the last was cut off. None when the process is just dying."""
        async with self._connecting:
            child, engine = self._child, self._engine
            if child is None or engine is None or engine.channel.open:
                return engine
            if await child.ended(_EXIT_PATIENCE):
                return None
            self._engine = await RemoteEngine.connect(child.socket, child.why)
            return self._engine

    def _why_not(self) -> str:
        if self.state == State.GAVE_UP:
            return f"the engine crashed {self._crashes} times in a row and stays down; last: {self._last}"
        return self._last or "the engine is not running"

    def _become(self, state: State, text: str) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state, text)
            self._changed.set()
            self._changed = asyncio.Event()

    async def _launch(self) -> None:
        self._become(State.STARTING, self._last)
        child = await _Child.spawn(self._config, self._on_line, self._module)
        self._child = child
        try:
            await asyncio.wait_for(child.listening(), self.policy.start_timeout)
            self._engine = await RemoteEngine.connect(child.socket, child.why)
        except BaseException as error:
            await child.stop(0)
            self._child = None
            if isinstance(error, TimeoutError):
                error = EngineLost(f"the engine was not ready after {self.policy.start_timeout:g} s")
            self._last = str(error)
            self._become(State.STOPPED, self._last)
            raise error from None
        self._become(State.READY, f"process {child.process.pid}")

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            if self._child is not None:
                await self._child.process.wait()
                self._last = (await self._child.why("")).detail
                self._child.clean()
            if loop.time() - started > self.policy.steady:
                self._crashes = 0
            self._crashes += 1
            if self._crashes >= self.policy.crashes:
                self._become(State.GAVE_UP, self._last)
                return
            self._become(State.WAITING, self._last)
            await asyncio.sleep(min(self.policy.first_pause * 2 ** (self._crashes - 1), self.policy.longest_pause))
            try:
                await self._launch()
            except EngineError:
                continue  # counted as one more crash; `_last` has its text


class _Child:
    """One process: its socket's directory, its last words, how it ended."""

    def __init__(
        self, process: asyncio.subprocess.Process, directory: Path, ready: int, on_line: Callable[[str], None]
    ) -> None:
        self.process = process
        self.socket = directory / "engine.sock"
        self._directory, self._ready, self._on_line = directory, ready, on_line
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._reading = asyncio.get_running_loop().create_task(self._read_lines())

    @classmethod
    async def spawn(cls, config: Config, on_line: Callable[[str], None], module: str) -> _Child:
        """Start it. Raises OSError when the machine has no room for a process."""
        # mkdtemp's directories are open to their owner only.
        directory = Path(tempfile.mkdtemp(prefix="bakehouse-engine-"))
        ours, theirs = os.pipe()
        command = [sys.executable, "-m", module, "--socket", str(directory / "engine.sock")]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--ready-fd",
                str(theirs),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            os.close(theirs)
        child = cls(process, directory, ours, on_line)
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died already; `listening` says how
            process.stdin.write(config.line())
            await process.stdin.drain()
        return child

    async def listening(self) -> None:
        """Wait until it listens. Raises the refusal that it sent, or `EngineLost` when it ended first."""
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self._ready, "rb", buffering=0)
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            line = await reader.readline()
        finally:
            transport.close()
        if not line:
            raise await self.why("")
        said = orjson.loads(line)
        if "error" in said:
            raise read_error(*said["error"])

    async def ended(self, patience: float) -> bool:
        """Whether it ends within *patience* seconds."""
        try:
            await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            return False
        return True

    async def why(self, reason: str) -> EngineLost:
        """How it ended, once it has; *reason* where it is still there."""
        if not await self.ended(_EXIT_PATIENCE):
            return EngineLost("the engine closed the connection" + (f": {reason}" if reason else ""))
        await asyncio.wait([self._reading], timeout=_EXIT_PATIENCE)  # a grandchild may hold the pipe open
        said = "; it said last:\n" + "\n".join(self._last) if self._last else ""
        return EngineLost(f"the engine process ended ({_end_text(self.process.returncode)}){said}")

    async def stop(self, patience: float) -> None:
        """Ask it to end, kill it after *patience* seconds, and remove its directory."""
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            self.process.send_signal(signal.SIGTERM if patience > 0 else signal.SIGKILL)
        try:
            await asyncio.wait_for(self.process.wait(), patience or None)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                self.process.kill()
            await self.process.wait()
        await asyncio.wait([self._reading], timeout=_EXIT_PATIENCE)
        self.clean()

    def kill(self, reason: str) -> None:
        self._line(reason.encode())
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            self.process.kill()

    def clean(self) -> None:
        """Remove its socket's directory; close its stdin. May be repeated."""
        self._reading.cancel()
        if self.process.stdin is not None:
            self.process.stdin.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _read_lines(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        while chunk := await self.process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > 65536:
                self._line(rest)
                rest = b""
        if rest:
            self._line(rest)

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")[:_LINE_CHARACTERS].rstrip()
        if text:
            self._last.append(text)
            self._on_line(text)


def _end_text(status: int | None) -> str:
    if status is None:
        return "its exit status is not known"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
