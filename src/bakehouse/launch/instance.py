"""One instance of an app: a child process and the calls that were given to it, from birth to the last outcome."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from bakehouse.apphost.messages import PROTOCOL, cancel
from bakehouse.core.app import Limits, Version
from bakehouse.core.executor import (
    Call,
    Delta,
    Failure,
    Finished,
    Logged,
    Lost,
    Moved,
    Progressed,
    Returned,
    Sink,
    Yielded,
)
from bakehouse.core.task import TaskStatus
from bakehouse.launch.base import Environment
from bakehouse.launch.calls import CallState, OutputFileError, Phase, failure_of, finished_with, take_files
from bakehouse.launch.channel import Channel
from bakehouse.launch.isolate import ISOLATION_FAILED, Places, make_plan
from bakehouse.launch.keeper import MOVES, End, Keeper, OperatorLog, Stage
from bakehouse.launch.pool import Member
from bakehouse.launch.process import Process, end_text, message_sockets
from bakehouse.launch.surroundings import app_argv, app_environ

_SHIM_SECONDS = 2.0
"""How long a shim may take to end what it keeps."""


class Instance:
    """See the module's text. Everything happens in the event loop; nothing here blocks."""

    def __init__(
        self,
        keeper: Keeper,
        member: Member,
        version: Version,
        owner_id: str,
        setup: str | None,
        limits: Limits,
    ) -> None:
        self.keeper, self.member, self.version, self.owner_id = keeper, member, version, owner_id
        self.id = member.id
        self.limits = limits
        self.stage = Stage.PREPARING
        self.calls: dict[str, CallState] = {}
        self.losses = 0
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._end: End | None = None
        self._failure: Failure | None = None
        self._held: deque[CallState] = deque()
        self._log = OperatorLog(self._loop, lambda *told: keeper.hooks.instance_log(self.id, version.id, *told))
        self._executing = 0
        self._running: CallState | None = None
        self._single = version.manifest.concurrency <= 1
        self._context = {
            "worker_id": self.id,
            "gpu_ids": list(member.gpus),
            "app_id": version.app_id,
            "app_version_id": version.id,
        }

    # ---- birth ---------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process to watch, None when there is none."""
        return self._process.pid if self._process is not None and self._process.alive else None

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self.stage == Stage.DEAD

    @property
    def end_reason(self) -> str:
        """Why it ends, in words."""
        return self._failure.message if self._failure else self._end.reason if self._end else "its instance was stopped"

    def spawn(self, environment: Environment, environ: dict[str, str], places: Places) -> None:
        """Start the process. Raises OSError when the machine refuses one."""
        settings = self.keeper.settings
        environment = environment.resolved()
        ours, theirs = message_sockets()
        plan = make_plan(
            app_argv(environment.python),
            home=settings.home,
            places=places,
            readable=[environment.app_dir],
            limits=self.limits,
            isolation=settings.isolation,
        )
        variables = app_environ(environ, environment, places, self.id, settings.home, theirs.fileno(), self.member.gpus)
        try:
            self._process = Process(self._loop, plan, variables, theirs.fileno(), self._printed, self._exited)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._places = places
        self._channel = Channel(self._loop, ours, self._message, self._closed)
        self._enter(Stage.STARTING)
        self._arm(settings.startup_timeout, "the app's process did not answer within {:g} s", "start_timeout")
        self._channel.send(self._hello(environment, places))

    def _hello(self, environment: Environment, places: Places) -> dict[str, Any]:
        dirs = {name: str(getattr(places, name)) for name in ("work", "temp", "cache", "outbox")}
        manifest = self.version.manifest
        return {
            "t": "hello",
            "protocol": PROTOCOL,
            "mode": "serve",
            "app_dir": str(environment.app_dir),
            "dirs": dirs,
            "setup": orjson.Fragment(self._setup) if self._setup else None,
            "concurrency": manifest.concurrency,
            "ids": {
                "app_id": self.version.app_id,
                "app_ref": f"{manifest.namespace or ''}/{manifest.name}@{self.version.short_id}".lstrip("/"),
                "version_id": self.version.id,
                "owner_id": self.owner_id,
            },
        }

    def fail(self, failure: Failure) -> None:
        """It cannot be brought up: every call that waits for it ends with *failure*."""
        self._failure = failure
        if self._process is None:
            self._die()
        else:
            self.kill(End(failure.message, failure.code, retry=False))

    def _arm(self, seconds: float, text: str, code: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, lambda: self.fail(Failure(text.format(seconds), code)))

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        move = MOVES.get(stage)
        if move is not None:
            for state in self.calls.values():
                state.tell(Moved(move))

    # ---- calls ---------------------------------------------------------------------------------------------

    def assign(self, call: Call, sink: Sink) -> CallState:
        """Give it one more call."""
        state = CallState(call, sink)
        self.calls[state.id] = state
        if self.stage == Stage.READY:
            self._send(state)
        else:
            state.tell(Moved(MOVES.get(self.stage, TaskStatus.SERVING)))
        return state

    def _send(self, state: CallState) -> None:
        assert self._channel is not None
        call = state.call
        task = call.task
        message = {
            "t": "call",
            "id": state.id,
            "attempt": call.attempt,
            "function": task.function,
            "input": orjson.Fragment(task.input),
            "context": {"task_id": task.id, "session_id": task.session_id} | call.context | self._context,
        }
        try:
            self._channel.send(message)
        except ValueError as error:
            self._leave(state, Finished(failure=Failure(f"the input is too large: {error}", "invalid_input")))
            return
        state.phase = Phase.SENT
        self._held.append(state)
        self._run_next()

    def _run_next(self) -> None:
        """Count the oldest calls that the child holds as running, as many as it runs at a time.

        The child takes them up in order, and says so a little later, together with other things. Were we to wait for
        that, a call that ends its process at once would seem never to have begun, and would be tried for ever.
        """
        while self._held and self._executing < self.member.need.slots:
            state = self._running = self._held.popleft()
            self._executing += 1
            state.phase = Phase.RUNNING
            state.started = self._loop.time()
            if state.cancelling:
                # Cancelled while it was held: the child knows, but the app may not heed.
                self._force_after(state, self.keeper.settings.cancel_grace)
            state.tell(Moved(TaskStatus.RUNNING))

    def send_item(self, state: CallState, item: dict[str, Any]) -> bool:
        """Hand an inbox item to a call; False when it is not running or the app does not read."""
        if self._channel is None or state.phase == Phase.WAITING or self._channel.full:
            return False
        self._channel.send({"t": "inbox", "id": state.id, "item": item})
        return True

    def cancel(self, state: CallState, grace: float) -> None:
        """Cancel one call: at once where it has not begun, else cooperatively and after *grace* seconds by force."""
        if state.phase == Phase.WAITING:
            self._leave(state, Finished(cancelled=True))
            if not self.calls and self.stage < Stage.READY:
                self._kill_timer = self._kill_timer or self._loop.call_later(grace, self._abandon)
            return
        if self._channel is not None and not state.cancelling:
            self._channel.send(cancel(state.id))
        state.cancelling = True
        if state.phase == Phase.SENT:
            state.finish(Finished(cancelled=True))  # the child still has it; its answer frees the place
        else:
            self._force_after(state, grace)

    def recall(self) -> None:
        """Take back the calls that the child holds: the one that runs takes longer than was expected."""
        for state in self._held:
            if self._channel is not None and not state.cancelling and not state.recalled:
                state.recalled = True
                self._channel.send(cancel(state.id, held_only=True))

    def stalled(self, seconds: float) -> bool:
        """Whether calls are held behind one that has run for *seconds* or more."""
        running = self._running
        return bool(self._held) and running is not None and self._loop.time() - running.started >= seconds

    def _abandon(self) -> None:
        """Nobody waits for a start that takes long."""
        self._kill_timer = None
        if not self.calls and self.stage < Stage.READY:
            self.fail(Failure("nobody waits for it any more", "abandoned"))

    def _force_after(self, state: CallState, grace: float) -> None:
        due = self._loop.time() + grace
        if state.timer is not None and state.timer.when() <= due:
            return
        if state.timer is not None:
            state.timer.cancel()
        state.timer = self._loop.call_later(grace, self._force, state)

    def _force(self, state: CallState) -> None:
        state.timer = None
        if state.id in self.calls:
            self.kill(End("its instance was ended: another call did not stop when it was cancelled"), gently=True)

    def _leave(self, state: CallState, outcome: Any, seconds: float | None = None) -> None:
        """The call is over: report, and free its place."""
        del self.calls[state.id]
        if state.phase == Phase.RUNNING:
            self._executing -= 1
            self._running = None
        elif state.phase == Phase.SENT:
            self._held.remove(state)
        state.finish(outcome)
        if self._held and self.stage == Stage.READY:
            self._run_next()
        self.keeper.call_left(self, state, seconds)

    # ---- what the child says -------------------------------------------------------------------------------

    def _message(self, message: dict[str, Any]) -> None:
        _HANDLERS[message["t"]](self, message)

    def _on_hello(self, message: dict[str, Any]) -> None:
        if message["protocol"] != PROTOCOL:
            spoken = message["protocol"]
            self.fail(Failure(f"the child speaks protocol {spoken}, this server {PROTOCOL}", "protocol_error"))
        elif self.stage == Stage.STARTING:
            self._enter(Stage.SETTING_UP)
            self._arm(self.keeper.settings.setup_timeout, "setup took longer than {:g} s", "setup_timeout")

    def _on_ready(self, _message: dict[str, Any]) -> None:
        if self.stage != Stage.SETTING_UP or self._end is not None:
            return
        self._stop_timers()
        self.stage = Stage.READY
        assert self._process is not None
        self._process.drain_output()
        for state in list(self.calls.values()):
            self._send(state)
        self.keeper.instance_ready(self)

    def _on_failed(self, message: dict[str, Any]) -> None:
        self.fail(failure_of(message["error"], f"{message['stage']}_failed"))

    def _on_log(self, message: dict[str, Any]) -> None:
        lines = [str(line) for line in message["lines"]]
        state = self.calls.get(message["id"]) if message.get("id") else None
        if state is not None:
            state.tell(Logged(message["stream"], lines, message.get("level")))
        else:
            self._printed(message["stream"], lines)

    def _printed(self, stream: str, lines: list[str]) -> None:
        """Lines that name no call: of the one that runs, of all that wait for the start, else of the instance."""
        if self._single and self._running is not None:
            self._running.tell(Logged(stream, lines))
        elif self.stage < Stage.READY and self.calls:
            for state in self.calls.values():
                state.tell(Logged(stream, lines))
        else:
            self._log.add(stream, lines)

    def _on_progress(self, message: dict[str, Any]) -> None:
        state = self.calls.get(message["id"])
        if state is not None:
            state.tell(Progressed(message["current"], message["total"], message.get("message")))

    def _on_partial(self, message: dict[str, Any]) -> None:
        state = self.calls.get(message["id"])
        if state is None:
            return
        try:
            files = take_files(message, self._places.outbox, self.keeper.store)
        except OutputFileError as error:
            state.tell(Logged("system", [f"a partial output was dropped: {error}"]))
        else:
            state.tell(Yielded(message["output"], files))

    def _on_delta(self, message: dict[str, Any]) -> None:
        state = self.calls.get(message["id"])
        if state is not None and isinstance(message["delta"], dict):
            state.tell(Delta(message["delta"]))

    def _on_result(self, message: dict[str, Any]) -> None:
        self._over(message, lambda: finished_with(message, self._places.outbox, self.keeper.store))

    def _on_error(self, message: dict[str, Any]) -> None:
        self._over(message, lambda: Finished(failure=failure_of(message["error"])))

    def _on_cancelled(self, message: dict[str, Any]) -> None:
        state = self.calls.get(message["id"])
        if state is not None and state.recalled and not state.cancelling:
            self._leave(state, Returned("its instance was busy with a longer call"))
        else:
            self._over(message, lambda: Finished(cancelled=True))

    def _over(self, message: dict[str, Any], outcome: Callable[[], Finished]) -> None:
        state = self.calls.get(message["id"])
        if state is None or state.phase == Phase.WAITING:
            return
        if self._single and self._process is not None:
            self._process.drain_output()
        seconds = self._loop.time() - state.started if state.phase == Phase.RUNNING else None
        self._leave(state, outcome(), seconds)

    # ---- the end -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let it run ``unload`` and end; by force after the stop grace."""
        if self.stage >= Stage.STOPPING:
            return
        if self._channel is None:
            self._failure = self._failure or Failure("the server is stopping", "stopped")
            self._die()
            return
        self.stage = Stage.STOPPING
        self._end = self._end or End("its instance was stopped")
        self.keeper.instance_leaving(self)
        self._channel.send({"t": "stop"})
        self._kill_later(self.keeper.settings.stop_grace)

    def kill(self, end: End, *, gently: bool = False) -> None:
        """End the process and everything it started; *end* is the reason for the call that runs. Repeatable."""
        if self.stage == Stage.DEAD:
            return
        self._end = self._end or end
        if self._process is None:
            self._die()
            return
        if self.stage < Stage.STOPPING:
            self.stage = Stage.STOPPING if self.stage == Stage.READY else self.stage
            self.keeper.instance_leaving(self)
        if gently:
            self._process.signal(signal.SIGTERM)
            self._kill_later(self.keeper.settings.term_grace)
        else:
            self._process.kill()
            self._kill_later(_SHIM_SECONDS)

    def _kill_later(self, seconds: float) -> None:
        assert self._process is not None
        self._stop_timers()
        self._kill_timer = self._loop.call_later(seconds, self._kill_now)

    def _kill_now(self) -> None:
        """Kill it; when its shim does not answer, the shim too, which ends everything below it."""
        assert self._process is not None
        self._process.kill()
        self._kill_timer = self._loop.call_later(_SHIM_SECONDS, self._process.signal, signal.SIGKILL)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._kill_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._kill_timer = None

    def _closed(self, reason: str | None) -> None:
        """The message stream ended: with the process, or because the app spoiled it."""
        self._channel = None
        if reason is not None:
            self.kill(End(f"the app wrote to the server's own channel: {reason}", "protocol_error", retry=False))
        elif self._process is not None and self._process.alive and self.stage < Stage.STOPPING:
            # It may be about to exit; when it is not, it has closed its channel and is of no more use.
            self._kill_timer = self._loop.call_later(
                1.0, self.kill, End("the app closed the server's own channel", "protocol_error", retry=False)
            )

    def _exited(self, status: int) -> None:
        if self._channel is not None:
            self._channel.drain()
        if status == ISOLATION_FAILED and self.stage == Stage.STARTING:
            self._failure = self._failure or Failure("the app could not be isolated", "start_failed")
        self._end = self._end or End(f"the app's process ended ({end_text(status)})")
        self._die()

    def _die(self) -> None:
        """The process is gone, or never was: every call gets its outcome, in the order of their coming."""
        began = self.stage >= Stage.READY
        self.stage = Stage.DEAD
        self._stop_timers()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.keeper.instance_leaving(self)
        for state in list(self.calls.values()):
            self._leave(state, self._outcome(state, began))
        self.keeper.instance_gone(self)

    def _outcome(self, state: CallState, began: bool) -> Finished | Lost | Returned:
        end = self._end or End("its instance ended")
        if state.cancelling:
            return Finished(cancelled=True)
        if self._failure is not None:
            return Finished(failure=self._failure)
        if state.phase == Phase.RUNNING or not began:
            self.losses += 1
            return Lost(end.reason if began else f"{end.reason} before it was ready", end.code, end.retry)
        return Returned(end.reason)


_HANDLERS: dict[str, Callable[[Instance, dict[str, Any]], None]] = {
    "hello": Instance._on_hello,
    "ready": Instance._on_ready,
    "failed": Instance._on_failed,
    "started": lambda instance, message: None,  # known already, see _run_next
    "log": Instance._on_log,
    "progress": Instance._on_progress,
    "partial": Instance._on_partial,
    "delta": Instance._on_delta,
    "result": Instance._on_result,
    "error": Instance._on_error,
    "cancelled": Instance._on_cancelled,
    "described": lambda instance, message: None,
}
