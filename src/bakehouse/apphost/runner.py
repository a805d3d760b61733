"""Runs the calls of one app instance.

Async functions run as tasks on the main thread's event loop, all others in one worker thread, so that libraries
which insist on a single thread are content and the loop stays alive. The reader thread delivers messages; it never
runs code of the app for longer than a hook's start. One lock guards who waits and who runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import queue
import shutil
import threading
from collections import deque
from pathlib import Path
from typing import Any, Callable

from . import faults, messages
from .calls import COALESCE_SECONDS, Call, Latest, metadata_of
from .capture import Capture, current_task
from .channel import Channel, Ticker
from .convert import CallError, Outbox, encode_output, to_json, to_model
from .functions import Function, own_hook
from .loader import derives

_NOTHING = object()


class Worker:
    """The one thread of all synchronous code of the app."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="app", daemon=True).start()

    def put(self, job: Callable[[], None]) -> None:
        """Run ``job`` after all earlier ones; it must not raise."""
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            self._jobs.get()()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of ``function``, awaited on the loop; exceptions pass, ``SystemExit`` included."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        outcome: list[Any] = [None, None]

        def job() -> None:
            try:
                outcome[0] = function(*arguments)
            except BaseException as error:
                outcome[1] = error
            loop.call_soon_threadsafe(done.set)

        self.put(job)
        await done.wait()
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


class Runner:
    """Takes calls in order, runs at most ``concurrency`` at once, answers each exactly once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: Worker,
        channel: Channel,
        ticker: Ticker,
        functions: dict[str, Function],
        default: str | None,
        concurrency: int,
        dirs: dict[str, str],
        ids: dict[str, str],
    ) -> None:
        self.app: Any = None
        self.capture: Capture | None = None
        self._loop, self._worker, self._channel, self._ticker = loop, worker, channel, ticker
        self._functions, self._default, self._concurrency, self._ids = functions, default, concurrency, ids
        self._outbox = Outbox(dirs["outbox"])
        self._temp = Path(dirs["temp"])
        self._kept: set[str] = set()
        self._lock = threading.RLock()
        self._pending: deque[Call] = deque()
        self._running: dict[str, Call] = {}
        self._updating: set[Call] = set()
        self._open = False
        self._stopping = False

    # What the reader thread calls

    def receive(self, message: messages.Message) -> None:
        """Act on one message after ``hello``."""
        kind = message["t"]
        if kind == "call":
            name = message["function"] or self._default or ""
            with self._lock:
                self._pending.append(Call(message, self._functions.get(name)))
            self._start_next()
        elif kind == "cancel":
            self._cancel(message["id"], bool(message.get("held_only")))
        elif kind == "inbox":
            with self._lock:
                # Held ones too: the server may count a call as begun a moment before it does here.
                call = self._running.get(message["id"]) or next(
                    (held for held in self._pending if held.id == message["id"]), None
                )
            if call is not None:
                call.inbox.put(message["item"])
        elif kind == "stop":
            self.stop()

    def open(self, app: Any) -> None:
        """Setup is done: start what has arrived. Files that setup left in the temp directory stay."""
        self.app = app
        with contextlib.suppress(OSError):  # the app may remove its own directory
            self._kept = {path.name for path in self._temp.iterdir()}
        with self._lock:
            self._open = True
        self._start_next()
        if self._stopping:
            self._stop_when_idle()

    def stop(self, cancel: bool = False) -> None:
        """Take no more calls, let the running ones end (or cancel them), then stop the loop."""
        with self._lock:
            self._stopping = True
            self._pending.clear()
            running = list(self._running)
        for task_id in running if cancel else ():
            self._cancel(task_id)
        self._stop_when_idle()

    @property
    def stopping(self) -> bool:
        """Whether the instance is to end."""
        return self._stopping

    def abort(self, error: BaseException) -> None:
        """The loop itself was torn down by ``error`` (an exit in a background task): every running call fails."""
        for call in list(self._running.values()):
            self._finish(call, messages.encode(messages.error(call.id, faults.detail(error))))

    def current(self) -> Call | None:
        """The call whose code runs on this thread, or the only one that runs."""
        call = self._running.get(current_task.get())
        return call or self._only()

    def only_task(self) -> str:
        """The id of the only running call, or an empty string."""
        call = self._only()
        return call.id if call else ""

    def _only(self) -> Call | None:
        if len(self._running) != 1:
            return None
        with contextlib.suppress(StopIteration, RuntimeError):  # another thread may end it at this moment
            return next(iter(self._running.values()))
        return None

    def report_progress(self, current: float, total: float, message: str | None = None) -> None:
        """``self.report_progress``: does nothing outside of a call.

        Raises ``TypeError`` or ``ValueError`` for what is no finite number.
        """
        call = self.current()
        if call is not None:
            frame = messages.encode(
                messages.progress(call.id, _number(current), _number(total), None if message is None else str(message))
            )
            self._update(call, "progress", frame, [])

    def flush(self) -> None:
        """Send progress and partial outputs whose turn has come; the ticker calls it."""
        with self._lock:
            for call in list(self._updating):
                self._flush_updates(call)
            if self._updating:
                self._ticker.within(COALESCE_SECONDS)

    # Starting and ending calls

    def _start_next(self) -> None:
        while True:
            with self._lock:
                if not self._open or not self._pending or len(self._running) >= self._concurrency:
                    return
                call = self._pending.popleft()
                self._running[call.id] = call
            self._launch(call)

    def _launch(self, call: Call) -> None:
        if call.function is None:
            known = ", ".join(self._functions)
            fault = CallError("function_not_found", f"there is no function {call.name!r}; the app has {known}")
            self._finish(call, messages.encode(messages.error(call.id, faults.detail(fault))))
        elif call.function.is_async:
            self._loop.call_soon_threadsafe(self._spawn, call)
        else:
            self._worker.put(lambda: contextvars.Context().run(self._run_sync, call))

    def _spawn(self, call: Call) -> None:
        token = current_task.set(call.id)
        call.task = self._loop.create_task(self._run_async(call))
        current_task.reset(token)

    def _finish(self, call: Call, frame: bytes) -> None:
        with self._lock:
            # Before the answer and under the lock: after either, the next call may be writing here already.
            if len(self._running) == 1:
                self._clean_temp()
            del self._running[call.id]
            self._flush_updates(call, force=True)
            if self.capture is not None:
                self.capture.finish(call.id)
            more = bool(self._pending)
        self._channel.post(frame, hold=more)
        self._start_next()
        if self._stopping:
            self._stop_when_idle()

    def _begin(self, call: Call) -> None:
        call.begun = True
        if call.cancel_requested:
            raise asyncio.CancelledError
        self._channel.post(messages.encode(messages.started(call.id)), hold=True)

    async def _run_async(self, call: Call) -> None:
        try:
            self._begin(call)
            function = _known(call)
            arguments = await self._off_loop(function.file_input, self._arguments, call)
            outcome = getattr(self.app, function.name)(**arguments)
            if function.yields:
                outcome = await self._collect_async(call, outcome)
            else:
                outcome = await outcome
            frame = await self._off_loop(function.file_output, self._result, call, outcome)
        except BaseException as error:
            frame = self._failure(call, error)
        self._finish(call, frame)

    def _run_sync(self, call: Call) -> None:
        current_task.set(call.id)
        try:
            self._begin(call)
            function = _known(call)
            outcome = getattr(self.app, function.name)(**self._arguments(call))
            if function.yields:
                outcome = self._collect(call, outcome)
            frame = self._result(call, outcome)
        except BaseException as error:
            frame = self._failure(call, error)
        self._finish(call, frame)

    async def _off_loop(self, slow: bool, function: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread when files are downloaded or copied: the loop must stay alive."""
        if not slow:
            return function(*arguments)
        run = contextvars.copy_context().run
        return await self._loop.run_in_executor(None, run, function, *arguments)

    def _collect(self, call: Call, outcome: Any) -> Any:
        last = _NOTHING
        try:
            for item in outcome:
                last = self._yielded(call, item, last)
                if call.cancel_requested:
                    raise asyncio.CancelledError
        finally:
            outcome.close()
        return last

    async def _collect_async(self, call: Call, outcome: Any) -> Any:
        last = _NOTHING
        try:
            async for item in outcome:
                last = self._yielded(call, item, last)
        finally:
            await outcome.aclose()
        return last

    # Inputs and outputs

    def _arguments(self, call: Call) -> dict[str, Any]:
        function = _known(call)
        arguments: dict[str, Any] = {}
        if function.input_name is not None:
            arguments[function.input_name] = to_model(function.input_type, call.input, "/input")
        if function.metadata_name is not None:
            kind = function.metadata_type if derives(function.metadata_type, "Metadata") else None
            arguments[function.metadata_name] = metadata_of(call, self._ids, kind)
        return arguments

    def _yielded(self, call: Call, item: Any, last: Any) -> Any:
        if derives(type(item), "StreamDelta"):
            self._channel.post(messages.encode(messages.delta(call.id, to_json(item))), hold=True)
            return last
        output, files = self._outbox.convert(item, _known(call))
        self._update(call, "partial", encode_output(messages.partial, call.id, output, files), files)
        return item

    def _result(self, call: Call, outcome: Any) -> bytes:
        if outcome is _NOTHING:
            raise CallError("no_output", f"{_known(call).name}() yielded nothing")
        output, files = self._outbox.convert(outcome, _known(call))
        if call.cancel_requested:
            self._outbox.discard(files)
            raise asyncio.CancelledError
        return encode_output(messages.result, call.id, output, files)

    def _failure(self, call: Call, error: BaseException) -> bytes:
        if not call.cancel_requested:
            return messages.encode(messages.error(call.id, faults.detail(error)))
        if not isinstance(error, asyncio.CancelledError):
            logging.getLogger("app").error("after the request to cancel: %s", faults.detail(error)["message"])
        return messages.encode(messages.cancelled(call.id))

    # Progress and partial outputs

    def _update(self, call: Call, kind: str, frame: bytes, files: list[messages.Message]) -> None:
        with self._lock:
            latest = call.updates.setdefault(kind, Latest(self._outbox.discard))
            ready = latest.offer(frame, files)
            if ready is None:
                self._updating.add(call)
                self._ticker.within(COALESCE_SECONDS)
        if ready is not None:
            self._channel.post(ready, hold=True)

    def _flush_updates(self, call: Call, force: bool = False) -> None:
        for latest in call.updates.values():
            frame = latest.take(force)
            if frame is not None:
                self._channel.post(frame, hold=True)
        if not any(latest.waits for latest in call.updates.values()):
            self._updating.discard(call)

    # Cancelling and stopping

    def _cancel(self, task_id: str, held_only: bool = False) -> None:
        """Cancel a call; with *held_only* just one that has not begun: the server takes it back."""
        with self._lock:
            call = self._running.get(task_id)
            if call is None:
                held = next((held for held in self._pending if held.id == task_id), None)
                if held is not None:
                    self._pending.remove(held)
                    self._channel.post(messages.encode(messages.cancelled(task_id)))
                return
            if call.cancel_requested or held_only:
                return
            call.cancel_requested = True
        hook = own_hook(type(self.app), "on_cancel")
        if hook is None:
            self._loop.call_soon_threadsafe(self._cancel_task, call)
        elif inspect.iscoroutinefunction(hook):
            asyncio.run_coroutine_threadsafe(self._on_cancel_async(call), self._loop)
        else:
            threading.Thread(target=self._on_cancel, args=(call,), name="app-cancel", daemon=True).start()

    def _on_cancel(self, call: Call) -> None:
        current_task.set(call.id)
        try:
            self.app.on_cancel()
        except Exception:
            logging.getLogger("app").exception("on_cancel failed")
        self._loop.call_soon_threadsafe(self._cancel_task, call)

    async def _on_cancel_async(self, call: Call) -> None:
        current_task.set(call.id)
        try:
            await self.app.on_cancel()
        except Exception:
            logging.getLogger("app").exception("on_cancel failed")
        self._cancel_task(call)

    def _cancel_task(self, call: Call) -> None:
        # A task that is cancelled before its first step never runs, so nobody would answer for it; _begin does.
        if call.begun and call.task is not None:
            call.task.cancel()

    def _stop_when_idle(self) -> None:
        with self._lock:
            if self._running or not self._open:
                return
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _clean_temp(self) -> None:
        # What cannot be removed (the app may also do so itself meanwhile) is left for the end of the instance.
        with contextlib.suppress(OSError):
            for path in list(self._temp.iterdir()):
                if path.name in self._kept:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _number(value: Any) -> float:
    """Numbers of numpy and the like become plain ones; an int stays one."""
    return value if type(value) in (int, float) else float(value)


def _known(call: Call) -> Function:
    assert call.function is not None, "only calls of known functions are launched"
    return call.function
