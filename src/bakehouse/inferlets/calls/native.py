"""The same calls for a program of this process, outside the sandbox: for `inferlet.connect`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Launch, Limits, Outcome, Outlet, Services
from bakehouse.inferlets.calls.finalizers import Janitor
from bakehouse.inferlets.calls.guest import Guest


class NativeHost:
    """A host that many threads may call, and that says when a result is there. Closing it frees everything."""

    def __init__(self, guest: Guest) -> None:
        calls = guest.calls
        self.guest = guest
        guest.janitor = guest.janitor or Janitor()
        self.waits = calls.waits
        self.models = calls.models
        self.contexts = calls.contexts
        self.passes = calls.passes
        self.grammars = calls.grammars
        self.decoders = calls.decoders
        self.adapters = calls.adapters
        self.client = calls.client
        self.runtime = calls.runtime
        self.messaging = calls.messaging
        self.mcp = calls.mcp

    def when_ready(self, wait: int, call: Callable[[], None]) -> None:
        """Call *call* once, from any thread, when `waits.take` of *wait* would answer at once. It must not block."""
        self.guest.waits.when_ready(wait, call)

    def close(self) -> None:
        self.guest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Printed:
    """An outlet for notebooks and terminals: messages are printed as they are, of files their size."""

    def message(self, text: str) -> None:
        print(text, flush=True)

    def file(self, data: bytes) -> None:
        print(f"[file, {len(data)} bytes]", flush=True)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        print(text, end="", flush=True)

    def ended(self, outcome: Outcome) -> None:
        """Nothing is left to be said: the program itself is in this process."""


def open_native(
    engine: Engine,
    *,
    owner: str,
    services: Services,
    outlet: Outlet | None = None,
    username: str | None = None,
    program: str = "native",
    limits: Limits | None = None,
    adapters: Path | None = None,
) -> NativeHost:
    """A host for one program of *owner* in this process. Its messages go to *outlet*, or are printed."""
    launch = Launch(
        id=f"native-{secrets.token_hex(8)}",
        owner=owner,
        username=username or owner,
        program=program,
        limits=limits or Limits(),
    )
    return NativeHost(Guest(launch, engine, services, outlet or Printed(), adapters=adapters))
