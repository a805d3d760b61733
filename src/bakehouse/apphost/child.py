"""The life of a child: hello, load, describe or set up, serve, unload, exit."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import logging
import os
import platform
import queue
import threading
from typing import Any

from . import calls, faults, functions, loader, messages, process
from .capture import Capture
from .channel import Channel, Ticker
from .convert import to_model
from .runner import Runner, Worker

EXIT_GRACE = 2.0
# Where the standard library and both SDKs put files.
_FOLDERS = {
    "TMPDIR": "temp",
    "FILE_CACHE_DIR": "cache",
    "INFSH_DATA_DIR": "work",
    "INFSH_TEMP_DIR": "temp",
    "INFSH_CACHE_DIR": "cache",
}


def main() -> int:
    """Run one child; the exit status is 0 after ``stop`` and after ``describe``, 1 when the app cannot serve."""
    connection = process.open_socket()
    process.close_descriptors(connection.fileno())
    process.die_with_parent()
    process.report_crashes()
    process.after_fork(connection)
    ticker = Ticker()
    child = Child(Channel(connection, ticker), ticker)
    code = child.run()
    # Threads that the app left behind must not keep the process alive.
    timer = threading.Timer(EXIT_GRACE, os._exit, (code,))
    timer.daemon = True
    timer.start()
    return code


class _Failed(Exception):
    """The child has reported why it cannot serve."""


class Child:
    """Holds what outlives a phase; each phase reports its own failure as ``failed``."""

    def __init__(self, channel: Channel, ticker: Ticker) -> None:
        self._channel = channel
        self._ticker = ticker
        self._loop = asyncio.new_event_loop()
        self._runner: Runner | None = None
        self._early: queue.SimpleQueue[messages.Message] = queue.SimpleQueue()
        self._routing = threading.Lock()
        self._terminated = False

    def run(self) -> int:
        """The whole life; returns the exit status."""
        asyncio.set_event_loop(self._loop)
        self._channel.post(messages.encode(messages.child_hello(os.getpid(), platform.python_version())))
        self._channel.listen(self._receive, self._broken)
        try:
            hello = self._await_hello()
            self._capture(hello)
            app_class, found = self._load(hello)
            if hello["mode"] == "describe":
                self._describe(app_class, found)
                return 0
            self._serve(app_class)
        except _Failed:
            return 1
        finally:
            self._channel.flush()
        return 0

    def _receive(self, batch: list[messages.Message]) -> None:
        for message in batch:
            with self._routing:
                if self._runner is None:
                    self._early.put(message)
                    continue
            self._runner.receive(message)

    def _broken(self, reason: str) -> None:
        self._fail("protocol", loader.LoadError(reason))
        os._exit(1)

    def _fail(self, stage: str, error: BaseException) -> None:
        self._channel.post(messages.encode(messages.failed(stage, faults.detail(error))))

    @contextlib.contextmanager
    def _stage(self, name: str) -> Any:
        try:
            yield
        except BaseException as error:
            self._fail(name, error)
            raise _Failed from error

    def _await_hello(self) -> messages.Message:
        with self._stage("protocol"):
            hello = self._early.get()
            if hello["t"] != "hello":
                raise loader.LoadError(f"the first message is {hello['t']!r}, not 'hello'")
            if hello["protocol"] != messages.PROTOCOL:
                raise loader.LoadError(f"the server speaks protocol {hello['protocol']}, the child {messages.PROTOCOL}")
            return hello

    def _capture(self, hello: messages.Message) -> None:
        capture = Capture(self._channel, self._ticker, lambda: self._runner.only_task() if self._runner else "")
        self._captured = capture
        self._ticker.add(capture.flush)
        self._ticker.add(lambda: self._runner.flush() if self._runner else None)
        self._ticker.add(self._channel.flush)
        self._ticker.start()
        capture.install()
        atexit.register(self._last_words)
        process.on_terminate(self._terminate)
        dirs = hello["dirs"]
        os.environ.update({variable: dirs[name] for variable, name in _FOLDERS.items() if dirs.get(name)})

    def _last_words(self) -> None:
        self._captured.finish_all()
        self._channel.flush()

    def _terminate(self) -> None:
        self._terminated = True
        runner = self._runner
        if runner is not None:
            # In a thread: the signal may have interrupted this very thread while it held the runner's lock.
            threading.Thread(target=runner.stop, kwargs={"cancel": True}, daemon=True).start()

    def _load(self, hello: messages.Message) -> tuple[type[Any], dict[str, functions.Function]]:
        with self._stage("import"):
            app_class = loader.load_app_class(hello["app_dir"])
            found = functions.find_functions(app_class)
        default = functions.default_function(found)
        wanted = hello.get("functions")
        if wanted:
            found = {name: function for name, function in found.items() if name in wanted}
        if hello["mode"] != "describe":
            self._prepare(hello, found, default)
        return app_class, found

    def _prepare(self, hello: messages.Message, found: dict[str, functions.Function], default: str | None) -> None:
        self._hello = hello
        self._worker = Worker()
        runner = Runner(
            self._loop,
            self._worker,
            self._channel,
            self._ticker,
            found,
            default,
            max(1, hello["concurrency"]),
            hello["dirs"],
            hello["ids"],
        )
        runner.capture = self._captured
        with self._routing:
            while not self._early.empty():
                runner.receive(self._early.get())
            self._runner = runner

    def _describe(self, app_class: type[Any], found: dict[str, functions.Function]) -> None:
        with self._stage("import"):
            setup = functions.setup_model(app_class)
            frame = messages.described(
                [functions.describe(function) for function in found.values()],
                functions.schema_of(setup) if setup else None,
                functions.default_function(found),
                app_class.__name__,
                all(function.is_async for function in found.values()),
            )
            self._channel.post(messages.encode(frame))

    def _serve(self, app_class: type[Any]) -> None:
        assert self._runner is not None, "_load prepares it"
        runner = self._runner
        with self._stage("setup"):
            app = app_class()
            metadata = getattr(loader.sdk_module(app_class), "Metadata", None)
            context = calls.Context(runner.current, self._hello["ids"], metadata)
            calls.attach(app, context, self._hello["dirs"]["temp"], runner.report_progress)
            self._loop.run_until_complete(self._call_hook(app, "setup", self._setup_arguments(app_class)))
        self._captured.flush()
        self._channel.post(messages.encode(messages.ready()))
        if not self._terminated and not runner.stopping:
            runner.open(app)
            self._run_loop(runner)
        self._unload(app)

    def _run_loop(self, runner: Runner) -> None:
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            runner.abort(error)
            logging.getLogger("app").error("a background task ended the app: %r", error)
            raise _Failed from error

    def _setup_arguments(self, app_class: type[Any]) -> list[Any]:
        if not functions.setup_takes_values(app_class):
            return []
        return [to_model(functions.setup_model(app_class), self._hello.get("setup") or {}, "/setup")]

    async def _call_hook(self, app: Any, name: str, arguments: list[Any]) -> None:
        if functions.own_hook(type(app), name) is None:
            return
        hook = getattr(app, name)
        if inspect.iscoroutinefunction(hook):
            await hook(*arguments)
        else:
            await self._worker.run(hook, *arguments)

    def _unload(self, app: Any) -> None:
        try:
            self._loop.run_until_complete(self._call_hook(app, "unload", []))
        except BaseException as error:
            # The instance ends in any case; the log says why its clean-up did not.
            logging.getLogger("app").error("unload failed: %s", faults.detail(error)["traceback"])
