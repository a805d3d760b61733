"""What instances ask of a host that stands by itself: children, topics and MCP servers, all in this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, Protocol

from bakehouse.inferlets.base import Failure, Launch, McpServers, Messaging, Outcome, Outlet, Services
from bakehouse.inferlets.errors import SpawnFailed
from bakehouse.inferlets.programs import Program, ProgramStore, Ref

GIVEN_UP = Failure("cancelled", "the program that spawned it does not wait for it any more")


class Child(Protocol):
    """An instance, for who spawned it."""

    @property
    def outlet(self) -> Outlet: ...

    @property
    def program(self) -> Program | None:
        """What it runs; None for one outside the sandbox."""
        ...

    def terminate(self, failure: Failure) -> None: ...


class LocalServices(Services):
    """*launch* starts a child; its parent's outlet gets what the child prints."""

    def __init__(
        self,
        programs: ProgramStore,
        launch: Callable[[Launch, Outlet, Program], Child],
        parent: Callable[[str, str], Child],
        messaging: Messaging,
        mcp: McpServers,
    ) -> None:
        self.messaging = messaging
        self.mcp = mcp
        self._programs, self._launch, self._parent = programs, launch, parent

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        above = self._parent(parent.id, parent.owner)
        found = self._find(above.program, parent.owner, program)
        launch = Launch(
            id=str(uuid.uuid4()),
            owner=parent.owner,
            username=parent.username,
            program=found.ref,
            arguments=arguments,
            limits=parent.limits,
            parent=parent.id,
            depth=parent.depth + 1,
        )
        result: Future[str] = Future()
        outlet = _ChildOutlet(result, launch, above.outlet)
        child = self._launch(launch, outlet, found)
        # Called by `cancel` alone, or late, and then it does nothing.
        result.add_done_callback(lambda future: child.terminate(GIVEN_UP) if future.cancelled() else None)
        return result

    def _find(self, above: Program | None, owner: str, program: str) -> Program:
        """The program for *owner*, whom *above* runs for. Another's program brings what its manifest names, no more."""
        if above is not None and above.owner != owner:
            wanted = Ref.parse(program)
            named = above.manifest.dependencies.get(wanted.name)
            if named is not None and str(wanted.version or named) == named:
                return self._programs.find(above.owner, f"{wanted.name}@{named}")
        return self._programs.find(owner, program)


class _ChildOutlet(Outlet):
    """A child has no client: what it sends is dropped. Its end becomes its parent's result."""

    def __init__(self, result: Future[str], launch: Launch, parent: Outlet) -> None:
        self._result, self._launch, self._parent = result, launch, parent

    def message(self, text: str) -> None:
        pass

    def file(self, data: bytes) -> None:
        pass

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._parent.output(stream, text)

    def ended(self, outcome: Outcome) -> None:
        if not self._result.set_running_or_notify_cancel():
            return
        if outcome.failure is None:
            self._result.set_result(outcome.result)
        else:
            self._result.set_exception(SpawnFailed(f"{self._launch.program}: {outcome.failure.message}"))
