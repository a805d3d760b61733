"""The host of all instances in this process: who may run, a thread for each, and what is left of them afterwards."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakehouse.engine.errors import EngineError
from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Failure, Launch, McpServers, Outcome, Outlet, OwnerLimits, Services
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.deadlines import Deadlines
from bakehouse.inferlets.errors import InferletError, NotRunning, Refused
from bakehouse.inferlets.instances import GuardedOutlet, Instance
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.messaging import LocalMessaging
from bakehouse.inferlets.programs import Program, ProgramStore
from bakehouse.inferlets.services import LocalServices

if TYPE_CHECKING:
    from bakehouse.inferlets.sandbox import Compiled, Sandbox

log = logging.getLogger(__name__)

__all__ = ["InferletHost", "Instance"]

#: Programs that are kept loaded; each takes some address space and a little memory.
LOADED = 64
#: Seconds that the end of an instance waits for its children's, and that the host's end waits for instances.
PATIENCE = 10.0

_PARENT_ENDED = Failure("cancelled", "the program that spawned it has ended")
_STOPPING = Failure("cancelled", "the inferlet host is stopping")


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
        self.most = most
        self.programs = programs
        self._engine, self._sandbox, self._adapters = engine, sandbox, adapters
        self.services = services or LocalServices(
            programs, self.launch, self.instance, LocalMessaging(self.limits), mcp or ConfiguredMcp()
        )
        self._guard = threading.Lock()
        self._live: dict[str, Instance] = {}
        #: Also those that are free of everything and whose end is being told.
        self._present: set[Instance] = set()
        self._used: dict[str, _Used] = {}
        self._loaded: OrderedDict[str, Future[Compiled]] = OrderedDict()
        self._launched = 0
        self._ends: Counter[str] = Counter()
        self._closing = False
        self._deadlines = Deadlines(self._all, _end_late)

    def launch(self, launch: Launch, outlet: Outlet, program: Program | None = None) -> Instance:
        """Start an instance and return at once. Its end, however it comes, is told to *outlet*, once.

        *program* is what runs, where the caller knows it; else ``launch.program`` is looked up. Raises
        `NoSuchProgram`, `BadProgram`, `NotRunning` where its parent has ended, and `Refused` over a limit of the
        host, the owner or the parent. *outlet* is then not called.
        """
        found = program or self.programs.find(launch.owner, launch.program)
        guarded = GuardedOutlet(outlet, launch.id)
        guest = Guest(launch, self._engine, self.services, guarded, adapters=self._adapters)
        instance = Instance(launch, guest, guarded)
        with ExitStack() as undo:
            undo.callback(instance.guest.close)
            with self._guard:
                self._admit(instance)
            undo.callback(self._forget, instance)
            thread = threading.Thread(
                target=self._run, args=(instance, found), name=f"inferlet-{launch.id}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                raise Refused("this machine has no room for another thread") from None
            undo.pop_all()
        self._deadlines.add(instance.deadline)
        return instance

    def instance(self, id: str, owner: str) -> Instance:
        """Raises `NotRunning` where *owner* has none of that id that runs."""
        found = self._live.get(id)
        if found is None or found.launch.owner != owner:
            raise NotRunning(f"no instance {id} runs")
        return found

    def instances(self, owner: str) -> Sequence[Instance]:
        """Those of *owner* that run, the oldest first."""
        return [each for each in self._all() if each.launch.owner == owner]

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what runs now."""
        with self._guard:
            return {"instances": len(self._live), "launched": self._launched, "ended": dict(self._ends)}

    def close(self, grace: float = 0.0) -> None:
        """Refuse launches, wait *grace* seconds for what runs, then end it. May be repeated.

        The engine, the sandbox and MCP servers stay open: they are the caller's.
        """
        with self._guard:
            self._closing = True
        self._wait(grace)
        for instance in self._all():
            instance.terminate(_STOPPING)
        if not self._wait(PATIENCE):
            log.error("%d instances did not end in %g s", len(self._live), PATIENCE)
        self._deadlines.close()

    # Who may run; with the guard held

    def _admit(self, instance: Instance) -> None:
        launch = instance.launch
        if self._closing:
            raise Refused("the inferlet host is stopping")
        if launch.id in self._live:
            raise Refused(f"an instance {launch.id} runs already")
        if len(self._live) >= self.most:
            raise Refused(f"this host runs at most {self.most} instances at one time")
        used = self._used.get(launch.owner) or _Used()
        if used.instances >= self.limits.instances:
            raise Refused(f"instances: an owner has at most {self.limits.instances} at one time")
        if used.memory + launch.limits.memory > self.limits.memory:
            raise Refused(
                f"memory: an owner's instances may use {self.limits.memory} bytes together, by their own limits; "
                f"{used.memory} are given away and this one asks for {launch.limits.memory}"
            )
        if launch.parent is not None:
            self._adopt(instance, launch.parent)
        self._live[launch.id] = instance
        self._present.add(instance)
        self._used[launch.owner] = used
        used.instances += 1
        used.memory += launch.limits.memory
        self._launched += 1

    def _adopt(self, instance: Instance, id: str) -> None:
        launch, parent = instance.launch, self._live.get(id)
        if parent is None or parent.children is None:
            raise NotRunning(f"the instance {id} that is to be its parent has ended")
        limits = parent.launch.limits
        if launch.depth > limits.depth:
            raise Refused(f"depth: programs spawn each other at most {limits.depth} deep")
        if len(parent.children) >= limits.children:
            raise Refused(f"children: a program has at most {limits.children} at one time")
        parent.children[launch.id] = instance

    # The thread of one instance

    def _run(self, instance: Instance, program: Program) -> None:
        outcome = Outcome(failure=Failure("internal", "an error inside the server; its log has more"))
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
        compiled = self._load(program)
        if instance.guest.failure is not None:
            return Outcome(failure=instance.guest.failure)
        return self._sandbox.run(compiled, instance.guest, instance.outlet.output)

    def _end(self, instance: Instance, outcome: Outcome) -> None:
        """Free everything, then tell. Each step is taken, also where one before it failed; the last is at the top."""
        instance.outcome = outcome
        try:
            with ExitStack() as steps:
                steps.callback(self._be_over, instance)
                steps.callback(instance.outlet.ended, outcome)
                steps.callback(self._forget, instance, outcome)
                steps.callback(instance.guest.close)
                steps.callback(self._end_children, instance)
        except BaseException:
            log.exception("instance %s left something behind", instance.launch.id)

    def _be_over(self, instance: Instance) -> None:
        with self._guard:
            self._present.discard(instance)
        instance.be_over()

    def _end_children(self, instance: Instance) -> None:
        with self._guard:
            children, instance.children = instance.children, None
        for child in list((children or {}).values()):
            child.terminate(_PARENT_ENDED)
        patient_until = time.monotonic() + PATIENCE
        for child in list((children or {}).values()):
            if child.wait(max(0.0, patient_until - time.monotonic())) is None:
                log.error("child %s of %s did not end in time", child.launch.id, instance.launch.id)

    def _forget(self, instance: Instance, outcome: Outcome | None = None) -> None:
        """Give back what it was admitted to. Without an *outcome* it never ran."""
        launch = instance.launch
        with self._guard:
            del self._live[launch.id]
            used = self._used[launch.owner]
            used.instances -= 1
            used.memory -= launch.limits.memory
            if not used.instances:
                del self._used[launch.owner]
            parent = self._live.get(launch.parent) if launch.parent is not None else None
            if parent is not None and parent.children is not None:
                parent.children.pop(launch.id, None)
            if outcome is None:
                self._launched -= 1
                self._present.discard(instance)
            else:
                self._ends["ok" if outcome.failure is None else outcome.failure.code] += 1

    def _load(self, program: Program) -> Compiled:
        """The compiled program: from memory, or by one thread while the others wait for it."""
        with self._guard:
            future = self._loaded.get(program.digest)
            first = future is None
            if future is None:
                future = self._loaded[program.digest] = Future()
                while len(self._loaded) > LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(program.digest)
        if first:
            try:
                future.set_result(self._sandbox.load(program.wasm))
            except BaseException as error:
                with self._guard:
                    self._loaded.pop(program.digest, None)  # the next launch tries again
                future.set_exception(error)
        return future.result()

    # All of them

    def _all(self) -> list[Instance]:
        with self._guard:
            return list(self._live.values())

    def _wait(self, seconds: float) -> bool:
        """Whether all ended within *seconds*."""
        until = time.monotonic() + seconds
        with self._guard:
            present = list(self._present)
        return all(each.wait(max(0.0, until - time.monotonic())) is not None for each in present)


@dataclass(slots=True)
class _Used:
    """What one owner's instances were admitted to."""

    instances: int = 0
    memory: int = 0


def _end_late(instance: Instance) -> None:
    limit = instance.launch.limits.wall
    instance.terminate(Failure("limit_exceeded", f"wall: it ran for more than {limit:g} s", limit="wall"))
