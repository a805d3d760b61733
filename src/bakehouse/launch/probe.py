"""Load an app once to learn what it offers, under the same isolation as an instance."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bakehouse.apphost.messages import PROTOCOL
from bakehouse.core.executor import Failure
from bakehouse.core.ids import new_id
from bakehouse.launch.base import Environment, LaunchError, LaunchSettings
from bakehouse.launch.calls import failure_of
from bakehouse.launch.channel import Channel
from bakehouse.launch.isolate import Places, make_plan
from bakehouse.launch.process import Process, end_text, message_sockets, remove_tree, sweep_marked
from bakehouse.launch.surroundings import app_argv, app_environ, marker
from bakehouse.launch.watch import usage

_EXIT_SECONDS = 2.0


async def describe(
    settings: LaunchSettings,
    *,
    app_dir: Path,
    python: Path,
    environ: dict[str, str],
    timeout: float,
    on_log: Callable[[str, str], None],
) -> dict[str, Any]:
    """The ``described`` message of the app in *app_dir*. Raises LaunchError; leaves nothing behind."""
    name = new_id("probe")
    root = settings.home / "instances" / name
    places = await asyncio.to_thread(Places.below, root)
    probe = _Probe(settings, Environment(python, app_dir).resolved(), places, environ, name, on_log)
    try:
        probe.start()
        return await probe.answer(timeout)
    finally:
        await probe.end()
        await asyncio.to_thread(sweep_marked, f"{marker(settings.home)}:{name}")
        await asyncio.to_thread(remove_tree, root)


class _Probe:
    def __init__(
        self,
        settings: LaunchSettings,
        environment: Environment,
        places: Places,
        environ: dict[str, str],
        name: str,
        on_log: Callable[[str, str], None],
    ) -> None:
        self._settings, self._environment, self._places = settings, environment, places
        self._environ, self._name, self._on_log = environ, name, on_log
        self._loop = asyncio.get_running_loop()
        self._found: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._process: Process | None = None
        self._channel: Channel | None = None

    def start(self) -> None:
        ours, theirs = message_sockets()
        plan = make_plan(
            app_argv(self._environment.python),
            home=self._settings.home,
            places=self._places,
            readable=[self._environment.app_dir],
            limits=self._settings.limits,
            isolation=self._settings.isolation,
        )
        variables = app_environ(
            self._environ, self._environment, self._places, self._name, self._settings.home, theirs.fileno()
        )
        try:
            self._process = Process(self._loop, plan, variables, theirs.fileno(), self._lines, self._exited)
        except OSError as error:
            ours.close()
            raise LaunchError("start", Failure(f"the probe could not be started: {error}", "start_failed")) from error
        finally:
            theirs.close()
        self._channel = Channel(self._loop, ours, self._message, self._closed)
        dirs = {key: str(getattr(self._places, key)) for key in ("work", "temp", "cache", "outbox")}
        self._channel.send(
            {
                "t": "hello",
                "protocol": PROTOCOL,
                "mode": "describe",
                "app_dir": str(self._environment.app_dir),
                "dirs": dirs,
                "setup": None,
                "concurrency": 1,
                "ids": {"app_id": "", "app_ref": "", "version_id": "", "owner_id": ""},
            }
        )

    async def answer(self, timeout: float) -> dict[str, Any]:
        watching = asyncio.create_task(self._watch())
        try:
            return await asyncio.wait_for(self._found, timeout)
        except TimeoutError:
            failure = Failure(f"the app was not loaded within {timeout:g} s", "import_timeout")
            raise LaunchError("timeout", failure) from None
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        limit = self._settings.limits.memory
        while self._process is not None and self._process.alive and limit is not None:
            used = await asyncio.to_thread(usage, self._process.pid, limit)
            if used.memory > limit:
                self._fail("import", f"loading it takes more than {limit // 2**20} MiB of memory", "out_of_memory")
            await asyncio.sleep(0.25)

    async def end(self) -> None:
        if self._process is not None:
            if self._found.done() and not self._found.cancelled():
                # It ends by itself now, and what it printed comes last.
                with contextlib.suppress(TimeoutError):  # a thread of the app keeps it alive
                    await asyncio.wait_for(self._ended.wait(), _EXIT_SECONDS)
            self._process.kill()
            await self._ended.wait()
        if self._channel is not None:
            self._channel.close()
        if self._found.done() and not self._found.cancelled():
            self._found.exception()  # whoever waited may be gone: it is not an error that nobody asks

    def _fail(self, stage: str, message: str, code: str) -> None:
        self._set(LaunchError(stage, Failure(message, code)))

    def _set(self, error: LaunchError) -> None:
        if not self._found.done():
            self._found.set_exception(error)

    def _lines(self, stream: str, lines: list[str]) -> None:
        for line in lines:
            self._on_log(stream, line)

    def _message(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "described" and not self._found.done():
            self._found.set_result(message)
        elif kind == "failed":
            stage = message["stage"]
            self._set(LaunchError(stage, failure_of(message["error"], f"{stage}_failed")))
        elif kind == "log":
            self._lines(message["stream"], [str(line) for line in message["lines"]])

    def _closed(self, reason: str | None) -> None:
        self._channel = None
        if reason is not None:
            self._fail("protocol", f"the app wrote to the server's own channel: {reason}", "protocol_error")

    def _exited(self, status: int) -> None:
        if self._channel is not None:
            self._channel.drain()
        self._fail("import", f"the app's process ended while it was loaded ({end_text(status)})", "import_failed")
        self._ended.set()
