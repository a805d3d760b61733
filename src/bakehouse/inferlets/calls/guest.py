"""What one instance holds: sessions with the engine by model, handles, waits, its inbox; and how all of it is freed."""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from threading import RLock

from bakehouse.engine.handle import Engine, SessionLimits
from bakehouse.inferlets.base import Failure, Launch, McpSession, Outlet, Services
from bakehouse.inferlets.calls.base import Bound, Follower, Model, Table, check_size
from bakehouse.inferlets.calls.calls import Calls
from bakehouse.inferlets.calls.finalizers import Janitor
from bakehouse.inferlets.calls.inbox import Inbox, Room
from bakehouse.inferlets.calls.line import Line
from bakehouse.inferlets.calls.masks import Mask
from bakehouse.inferlets.calls.waits import WaitTable
from bakehouse.inferlets.errors import Ended, Refused
from bakehouse.inferlets.family import Family

#: Sessions with MCP servers that an instance may have at one time.
MCP_SESSIONS = 64
#: The budget of host calls is counted over so many seconds.
CALLS_OVER = 10.0


class Guest:
    """Made when an instance is launched, on any thread; `close` is to be called whatever happens.

    *adapters* is the folder below which each owner may load and save adapters; without one that is refused. *family* is
    that of the instance that spawned this one; one that nobody spawned begins its own.
    """

    def __init__(
        self,
        launch: Launch,
        engine: Engine,
        services: Services,
        outlet: Outlet,
        *,
        adapters: Path | None = None,
        family: Family | None = None,
    ) -> None:
        limits = launch.limits
        self.launch = launch
        self.limits = limits
        self.engine = engine
        self.services = services
        self.outlet = outlet
        self.adapters = adapters
        self.family = family or Family()
        self.failure: Failure | None = None
        #: Of programs in this process, see `finalizers`.
        self.janitor: Janitor | None = None
        self.waits = WaitTable(limits.waits)
        self.room = Room(limits.memory)
        self.messages: Inbox[str] = Inbox(limits.queue, self.room)
        self.files: Inbox[bytes] = Inbox(limits.queue, self.room)
        self.models: Table[Model] = Table("model")
        self.contexts: Table[Bound] = Table("context", "contexts", limits.contexts)
        self.matchers: Table[Follower] = Table("matcher", "matchers", limits.matchers)
        self.masks: Table[Mask] = Table("mask", "matchers", limits.matchers)
        self.decoders: Table[Follower] = Table("decoder", "matchers", limits.matchers)
        self.tunings: Table[Bound] = Table("adapter")
        self.shared_adapters: set[Bound] = set()
        self.mcp: Table[McpSession] = Table("session", "mcp", MCP_SESSIONS)
        self.children: set[Future[str]] = set()
        self.aside = Line()
        self.calls = Calls(self)
        self._guard = RLock()
        self._closed = False
        self._budget = self._calls_left = int(limits.calls * CALLS_OVER)
        self._counted_from = time.monotonic()

    # Called for each call of the guest

    def enter(self) -> None:
        """Count a call. Raises `Ended` where the instance is to end, because of this call maybe."""
        if self.failure is not None or self._closed:
            raise Ended("the instance is ending")
        self._calls_left -= 1
        if self._calls_left < 0:
            self._count_anew()

    def _count_anew(self) -> None:
        now = time.monotonic()
        if now - self._counted_from < CALLS_OVER:
            limit = self.limits.calls
            self.end(
                Failure(
                    "limit_exceeded", f"calls: more than {limit} host calls a second, over {CALLS_OVER:g} s", "calls"
                )
            )
            raise Ended("the instance is ending")
        self._counted_from, self._calls_left = now, self._budget - 1

    def open(self, name: str) -> int:
        """The handle of a model, with a session of this instance. Raises `NotFound`."""
        with self._guard:
            known = self.models.find(lambda model: model.info.name == name)
            if known is not None:
                return known
            if self._closed:
                raise Ended("the instance is ending")
            limits = SessionLimits(
                contexts=self.limits.contexts,
                matchers=self.limits.matchers,
                decoders=self.limits.matchers,
                jobs=self.limits.waits,
                pages=self.limits.pages,
            )
            session = self.engine.session(name, self.launch.owner, self.launch.id, limits)
            return self.models.add(Model(session.model, session))

    # From the host, on any thread

    def deliver(self, text: str) -> None:
        """A message for `client.receive`. Raises `Refused` when it is too long, or too many wait."""
        self.messages.put(check_size("message", text, self.limits.message, "a message"))

    def deliver_file(self, data: bytes) -> None:
        """A file for `client.receive_file`. Raises `Refused` when it is too long, or too many wait."""
        if len(data) > self.limits.file:
            raise Refused(f"file: a file may have at most {self.limits.file} bytes", field="file")
        self.files.put(data)

    def end(self, failure: Failure) -> None:
        """The instance is to end: its calls, and its waits that block, raise `Ended` from now on.

        Of several reasons the first one stays.
        """
        self.failure = self.failure or failure
        self.waits.end()

    def close(self) -> None:
        """Free everything: waits with what works for them, contexts without a name, subscriptions, MCP sessions. May be
        repeated, in any state."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            if self.janitor is not None:
                self.janitor.stop()
            with ExitStack() as stack:  # each is freed, whatever the others raise; the last first
                for model in self.models.clear():
                    stack.callback(model.session.close)
                for session in self.mcp.clear():
                    stack.callback(session.close)
                stack.callback(self.waits.close)
            for table in (self.contexts, self.tunings, self.matchers, self.decoders, self.masks):
                table.clear()
