"""The calls of a program that runs at its client, outside any sandbox, one after the other in a thread of their own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from bakehouse.inferlets.calls.native import NativeHost
from bakehouse.inferlets.calls.results import NOT_YET, NotYet
from bakehouse.inferlets.dialogue.fields import BadRequest

INTERFACES = (
    "waits",
    "models",
    "contexts",
    "passes",
    "grammars",
    "decoders",
    "adapters",
    "client",
    "runtime",
    "messaging",
    "mcp",
)
#: These block: they have operations of their own.
_BLOCKING = {("waits", "take"): "take", ("waits", "any"): "watch"}


class NativeCalls:
    """One program's. Of one event loop. *room* waits while the client has too many answers to read already."""

    def __init__(self, host: NativeHost, room: Callable[[], Awaitable[None]]) -> None:
        self._host, self._room = host, room
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "inferlets-native")
        self._taking: set[int] = set()

    async def call(self, interface: str, method: str, arguments: list[Any]) -> Any:
        """What the method of an interface gives. Raises `BadRequest` for one that is not there, and its own errors."""
        found = self._method(interface, method)
        try:
            inspect.signature(found).bind(*arguments)
        except TypeError as error:
            raise BadRequest(f"arguments: {interface}.{method}: {error}", field="arguments") from None
        return await self._answer(found, *arguments)

    async def watch(self, wait: int) -> None:
        """Return when `take` of *wait* would answer at once."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def settle() -> None:
            if not ready.done():
                ready.set_result(None)

        def tell() -> None:
            with suppress(RuntimeError):  # the event loop is closed, and with it whoever waits
                self._loop.call_soon_threadsafe(settle)

        await self._loop.run_in_executor(self._thread, self._host.when_ready, wait, tell)
        await ready

    async def take(self, wait: int) -> str | None:
        """The result or next item of *wait*."""
        if wait in self._taking:
            raise BadRequest(f"wait: {wait} is being taken already", field="wait")
        self._taking.add(wait)
        try:
            value: str | NotYet | None = NOT_YET
            while isinstance(value, NotYet):
                await self.watch(wait)
                value = await self._answer(self._look, wait)
            return value
        finally:
            self._taking.discard(wait)

    def _look(self, wait: int) -> str | NotYet | None:
        """What `take` gives, where it does not block: a call that came meanwhile may have made the wait whole."""
        return self._host.waits.take(wait) if self._host.guest.waits.any((wait,), 0.0) else NOT_YET

    async def _answer(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What *call* gives, in its turn, and not before there is room for it."""
        async with self._turn:
            await self._room()
            return await self._loop.run_in_executor(self._thread, call, *arguments)

    async def close(self) -> None:
        """Free what the program holds."""
        await asyncio.to_thread(self._host.close)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _method(self, interface: str, method: str) -> Any:
        if (interface, method) in _BLOCKING:
            raise BadRequest(f"method: use the operation {_BLOCKING[interface, method]!r}", field="method")
        if interface not in INTERFACES:
            raise BadRequest(f"interface: must be one of {', '.join(INTERFACES)}, not {interface!r}", field="interface")
        found = None if method.startswith("_") else getattr(getattr(self._host, interface), method, None)
        if not inspect.ismethod(found) and not inspect.isfunction(found):
            raise BadRequest(f"method: {interface} has no {method!r}", field="method")
        return found
