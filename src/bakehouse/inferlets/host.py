"""The host of all instances in this process: a thread for each, and the end of each, whatever happens."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakehouse.engine.errors import EngineError
from bakehouse.engine.handle import Engine
from bakehouse.inferlets.admission import Admission
from bakehouse.inferlets.base import Failure, Launch, McpServers, Outcome, Outlet, OwnerLimits, Services
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.native import NativeHost
from bakehouse.inferlets.deadlines import Deadlines
from bakehouse.inferlets.errors import InferletError, NotRunning, Refused
from bakehouse.inferlets.instances import GuardedOutlet, Instance
from bakehouse.inferlets.loaded import LoadedPrograms
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.messaging import LocalMessaging
from bakehouse.inferlets.programs import Program, ProgramStore
from bakehouse.inferlets.services import LocalServices

if TYPE_CHECKING:
    from bakehouse.inferlets.sandbox import Sandbox

log = logging.getLogger(__name__)

__all__ = ["InferletHost", "Instance"]

#: Seconds that the end of an instance waits for its children's, and that the host's end waits for instances.
PATIENCE = 10.0

_PARENT_ENDED = Failure("cancelled", "the program that spawned it has ended")
_STOPPING = Failure("cancelled", "the inferlet host is stopping")
_DEFECT = Failure("internal", "an error inside the server; its log has more")


class InferletHost:
    """Thread-safe. ``most`` is how many instances run at one time; one more is refused, it does not wait.

    Without *services* children, topics and MCP servers are this host's own; *mcp* are the servers then. *adapters* is
    the folder below which each owner's programs may load and save adapters.
    """

    def __init__(
        self,
        engine: Engine,
        sandbox: Sandbox,
        programs: ProgramStore,
        *,
        services: Services | None = None,
        limits: OwnerLimits | None = None,
        most: int = 512,
        mcp: McpServers | None = None,
        adapters: Path | None = None,
    ) -> None:
        self.limits = limits or OwnerLimits()
        self.programs = programs
        self._engine, self._sandbox, self._adapters = engine, sandbox, adapters
        self.services = services or LocalServices(
            programs, self.launch, self.instance, LocalMessaging(self.limits), mcp or ConfiguredMcp()
        )
        self._admission = Admission(self.limits, most)
        self._loaded = LoadedPrograms(sandbox)
        self._guard = threading.Lock()
        #: Those that are not over: also those that are free of everything and whose end is being told.
        self._present: dict[Instance, None] = {}
        self._launched = 0
        self._ends: Counter[str] = Counter()
        self._deadlines = Deadlines(self._admission.all, _end_late)

    def launch(self, launch: Launch, outlet: Outlet, program: Program | None = None) -> Instance:
        """Start an instance and return at once. Its end, however it comes, is told to *outlet*, once.

        *program* is what runs, where the caller knows it; else ``launch.program`` is looked up. Raises
        `NoSuchProgram`, `BadProgram`, `NotRunning` where its parent has ended, and `Refused` over a limit of the
        host, the owner or the parent. *outlet* is then not called.
        """
        found = program or self.programs.find(launch.owner, launch.program)
        instance = self._admit(launch, outlet)
        instance.program = found
        name = f"inferlet-{launch.id}"
        thread = threading.Thread(target=self._run, args=(instance, found), name=name, daemon=True)
        try:
            thread.start()
        except BaseException as error:
            self._dismiss(instance)
            if isinstance(error, RuntimeError):
                raise Refused("this machine has no room for another thread") from None
            raise
        return instance

    def open_native(self, launch: Launch, outlet: Outlet) -> NativeHost:
        """A host for a program outside the sandbox, to be closed. It is an instance like others but for its thread.

        Raises as `launch` does.
        """
        return _Native(self._admit(launch, outlet, self._end_native), self._end)

    def instance(self, id: str, owner: str) -> Instance:
        """Raises `NotRunning` where *owner* has none of that id that runs."""
        found = self._admission.get(id)
        if found is None or found.launch.owner != owner:
            raise NotRunning(f"no instance {id} runs")
        return found

    def instances(self, owner: str) -> Sequence[Instance]:
        """Those of *owner* that run, the oldest first."""
        return [each for each in self._admission.all() if each.launch.owner == owner]

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what runs now."""
        with self._guard:
            return {"instances": len(self._admission), "launched": self._launched, "ended": dict(self._ends)}

    def close(self, grace: float = 0.0) -> None:
        """Refuse launches, wait *grace* seconds for what runs, then end it. May be repeated.

        The engine, the sandbox and MCP servers stay open: they are the caller's.
        """
        self._admission.close()
        self._wait(grace)
        for instance in self._admission.all():
            instance.terminate(_STOPPING)
        if not self._wait(PATIENCE):
            log.error("%d instances did not end in %g s", len(self._present), PATIENCE)
        self._deadlines.close()

    # The beginning

    def _admit(
        self, launch: Launch, outlet: Outlet, on_terminate: Callable[[Instance], None] = lambda _: None
    ) -> Instance:
        guarded = GuardedOutlet(outlet, launch.id)
        parent = None if launch.parent is None else self._admission.get(launch.parent)
        family = None if parent is None else parent.guest.family  # one without its parent is not admitted
        guest = Guest(launch, self._engine, self.services, guarded, adapters=self._adapters, family=family)
        instance = Instance(launch, guest, guarded, on_terminate)
        try:
            self._admission.enter(instance)
        except BaseException:
            guest.close()
            raise
        with self._guard:
            self._present[instance] = None
            self._launched += 1
        self._deadlines.add(instance.deadline)
        return instance

    def _dismiss(self, instance: Instance) -> None:
        """It never ran."""
        with self._guard:
            del self._present[instance]
            self._launched -= 1
        self._admission.leave(instance)
        instance.guest.close()

    # The thread of one instance

    def _run(self, instance: Instance, program: Program) -> None:
        outcome = Outcome(failure=_DEFECT)
        try:
            outcome = self._outcome(instance, program)
        except (InferletError, EngineError) as error:
            outcome = Outcome(failure=Failure(error.code, error.detail))
        except BaseException:
            # Nobody is above this: whoever waits for the instance must be told, whatever went wrong.
            log.exception("instance %s of %s ended by a defect", instance.launch.id, program.ref)
        finally:
            self._end(instance, outcome)

    def _outcome(self, instance: Instance, program: Program) -> Outcome:
        launch, compiled = instance.launch, self._loaded.get(program)
        if instance.guest.failure is not None:
            return Outcome(failure=instance.guest.failure)
        return _bounded(self._sandbox.run(compiled, instance.guest, instance.outlet.output), launch.limits.message)

    def _end(self, instance: Instance, outcome: Outcome) -> None:
        """Free everything, then tell. Each step is taken, also where one before it failed; the first is at the end."""
        if not instance.conclude(outcome):
            return
        try:
            with ExitStack() as steps:
                steps.callback(self._be_over, instance)
                steps.callback(instance.outlet.ended, outcome)
                steps.callback(self._admission.leave, instance)
                steps.callback(instance.guest.close)
                steps.callback(self._end_children, instance)
        except BaseException:
            log.exception("instance %s left something behind", instance.launch.id)

    def _end_native(self, instance: Instance) -> None:
        """From a thread of its own: whoever terminates one does not wait for its end."""
        outcome = Outcome(failure=instance.guest.failure)
        threading.Thread(target=self._end, args=(instance, outcome), name=f"inferlet-{instance.launch.id}").start()

    def _end_children(self, instance: Instance) -> None:
        children = self._admission.orphan(instance)
        for child in children:
            child.terminate(_PARENT_ENDED)
        until = time.monotonic() + PATIENCE
        for child in children:
            if child.wait(max(0.0, until - time.monotonic())) is None:
                log.error("child %s of %s did not end in time", child.launch.id, instance.launch.id)

    def _be_over(self, instance: Instance) -> None:
        failure = instance.outcome.failure if instance.outcome is not None else None
        with self._guard:
            del self._present[instance]
            self._ends["ok" if failure is None else failure.code] += 1
        instance.be_over()

    def _wait(self, seconds: float) -> bool:
        """Whether all were over within *seconds*."""
        until = time.monotonic() + seconds
        with self._guard:
            present = list(self._present)
        return all(each.wait(max(0.0, until - time.monotonic())) is not None for each in present)


class _Native(NativeHost):
    """The host of a program that has no thread of ours: whoever closes it ends the instance."""

    def __init__(self, instance: Instance, end: Callable[[Instance, Outcome], None]) -> None:
        super().__init__(instance.guest)
        self._instance, self._end = instance, end

    def close(self) -> None:
        """May be repeated."""
        self._end(self._instance, Outcome(failure=self.guest.failure))


def _bounded(outcome: Outcome, most: int) -> Outcome:
    """*outcome*, whose texts are a program's own: they are kept for its client, and go over sockets as one frame."""
    failure = outcome.failure
    if failure is None:
        size = len(outcome.result.encode("utf-8", "surrogatepass"))
        if size <= most:
            return outcome
        text = f"message: its result has {size} bytes; at most {most} are possible. Send what is longer as a file"
        return Outcome(failure=Failure("limit_exceeded", text, limit="message"))
    message, traceback = _cut(failure.message, most), _cut(failure.traceback, most)
    return Outcome(failure=replace(failure, message=message, traceback=traceback))


def _cut(text: str, most: int) -> str:
    """The first *most* bytes of it; of what is longer than a character each, fewer characters."""
    if len(text) * 4 <= most:
        return text
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _end_late(instance: Instance) -> None:
    limit = instance.launch.limits.wall
    instance.terminate(Failure("limit_exceeded", f"wall: it ran for more than {limit:g} s", limit="wall"))
