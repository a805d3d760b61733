"""What is said of MCP servers, what a program may ask of them, and the thread on which connections live."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bakehouse.inferlets.errors import McpFailed

T = TypeVar("T")

#: What a program may ask for. The rest of the protocol is between the host and the server.
METHODS = (
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """One server: a *command* with its arguments, which is started, or the *url* of one that runs.

    ``environment`` is added to a few harmless variables of ours, ``headers`` to each HTTP request. ``owners`` says who
    may use it; None, everybody. Times are seconds: ``timeout`` for one request, ``start_timeout`` until it answers.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    owners: frozenset[str] | None = None
    timeout: float = 60.0
    start_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: an MCP server has one")
        if bool(self.command) == bool(self.url):
            raise ValueError(f"MCP server {self.name!r} has either a command or a url")
        if self.environment and not self.command:
            raise ValueError(f"environment: MCP server {self.name!r} is not started here")
        if self.headers and not self.url:
            raise ValueError(f"headers: MCP server {self.name!r} is not spoken to over HTTP")
        for name in ("timeout", "start_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be a number of seconds above 0, not {getattr(self, name)!r}")


def check_request(server: str, method: str) -> None:
    """Raises `McpFailed` for what is not a program's to ask."""
    if method not in METHODS:
        raise McpFailed(f"MCP server {server!r}: a program cannot ask for {method!r}; it can for {', '.join(METHODS)}")


class LoopThread:
    """An event loop in a thread of its own, which starts at the first `run`. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Its result; cancelling the future cancels *work*. Fails with `McpFailed` after `close`."""
        with self._guard:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._started())
        work.close()
        refused: Future[T] = Future()
        refused.set_exception(McpFailed("the inferlet host is stopping"))
        return refused

    def call(self, call: Callable[..., object], *values: Any) -> None:
        """Call it soon on the loop; not at all where that has ended."""
        with self._guard:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(call, *values)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *last* on the loop, where there is one, cancel what else runs, and end. May be repeated."""
        with self._guard:
            loop, self._loop = self._loop, None
            self._closed = True
        if loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_finish(last), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
            self._thread.start()
        return self._loop


async def _finish(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await last()
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
