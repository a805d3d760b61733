"""The host of a program that runs outside the sandbox, with a server at the other end of a WebSocket.

`inferlet.connect("ws://...")` makes one. Each call of the program is a request; a thread of its own reads and writes.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from inferlet import _host
from inferlet._packing import pack_ids, unpack_ids
from inferlet.client._connection import Connection
from inferlet.client._errors import ConnectionLost
from inferlet.client._events import Event, File, Message, event_from
from inferlet.errors import HostError

T = TypeVar("T")

#: What finalizers call, beside `_RemoteWaits.drop`.
_RELEASES = frozenset({"release", "release_mask"})

#: Seconds that requests have to end after their connection.
_PATIENCE = 5.0


def show(event: Event) -> None:
    """Print what the program sends to its client: there is nobody else to show it to."""
    if isinstance(event, Message):
        print(f"[Message] {event.text}", flush=True)
    elif isinstance(event, File):
        print(f"[File] {len(event.data)} bytes", flush=True)


class RemoteHost:
    """A `_host.Native` at a distance. Any thread may call it.

    *events* gets what the program sends to its client, in a thread of this host. Raises `ConnectionLost`,
    `Unauthorized`.
    """

    def __init__(self, url: str, token: str | None = None, *, events: Callable[[Event], None] = show) -> None:
        self._events = events
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferlet-remote", daemon=True)
        self._thread.start()
        self._closed = False
        # A finalizer may come in the midst of what holds it, and want it too.
        self._guard = threading.RLock()
        # A program that never closed it still has finalizers to come, which would wait for a thread that is gone.
        atexit.register(self.close)
        try:
            self._connection = self._run(Connection.open(url, token, self._unasked, self._lost))
            self._process = str(self._run(self._connection.request("open"))["process"])
        except BaseException:
            self.close()
            raise
        self.waits: _host.Waits = cast(_host.Waits, _RemoteWaits(self))
        self.models: _host.Models = cast(_host.Models, _Interface(self, "models"))
        self.contexts: _host.Contexts = cast(_host.Contexts, _Interface(self, "contexts"))
        self.passes: _host.Passes = cast(_host.Passes, _Interface(self, "passes"))
        self.grammars: _host.Grammars = cast(_host.Grammars, _Interface(self, "grammars"))
        self.decoders: _host.Decoders = cast(_host.Decoders, _Interface(self, "decoders"))
        self.adapters: _host.Adapters = cast(_host.Adapters, _Interface(self, "adapters"))
        self.client: _host.Client = cast(_host.Client, _Interface(self, "client"))
        self.runtime: _host.Runtime = cast(_host.Runtime, _Interface(self, "runtime"))
        self.messaging: _host.Messaging = cast(_host.Messaging, _Interface(self, "messaging"))
        self.mcp: _host.Mcp = cast(_host.Mcp, _Interface(self, "mcp"))

    def send(self, text: str) -> None:
        """A message for the program's ``session.receive``, as a client of it would send."""
        self._run(self._connection.request("signal", process=self._process, text=text))

    def send_file(self, data: bytes) -> None:
        """A file for its ``session.receive_file``."""
        self._run(self._connection.request("file", data, process=self._process))

    def when_ready(self, wait: int, call: Callable[[], None]) -> None:
        """`_host.Native.when_ready`."""
        future = self._start(self._connection.request("watch", wait=wait))
        # Also when the wait or the connection is gone: `take` then says why.
        future.add_done_callback(lambda _: call())

    def close(self) -> None:
        """The server frees everything that the program held. May be repeated."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        # What was started before this comes before it in the loop, and nothing comes after it.
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close the connection. Threads that wait for an answer get theirs before the loop stops."""
        try:
            if hasattr(self, "_connection"):
                await self._connection.close()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=_PATIENCE)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)  # they are told in the turn after their task's end

    def request(self, op: str, **fields: Any) -> Any:
        """The value of what the server answers. Raises its errors, and `ConnectionLost`."""
        return self._run(self._connection.request(op, **fields)).get("value")

    def release(self, interface: str, method: str, arguments: list[Any]) -> None:
        """A call that finalizers make, which come in the midst of anything, on this host's own thread too.

        So nobody waits for it. It comes before whatever is asked afterwards.
        """
        self._start(self._connection.request("call", interface=interface, method=method, arguments=arguments))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("what gets the events of a host must not call it: have another thread do that")
        return self._start(work).result()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._guard:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise ConnectionLost("this host was closed")

    def _unasked(self, frame: dict[str, Any], data: bytes) -> None:
        if "event" in frame:
            event = event_from(frame, data)
            if event is not None:
                # In a turn of its own: what it raises is not the connection's fault.
                self._loop.call_soon(self._events, event)

    def _lost(self, end: HostError) -> None:
        """Requests that wait are told already; there is nobody else."""


def open_remote(url: str, *, token: str | None = None) -> RemoteHost:
    """The host at *url*, ``ws://host:port``; *token* is an API key. Raises as `RemoteHost`."""
    return RemoteHost(url, token)


class _Interface:
    """One interface: each method is a request."""

    def __init__(self, host: RemoteHost, name: str) -> None:
        self._host, self._name = host, name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*arguments: Any) -> Any:
            if method in _RELEASES:
                return self._host.release(self._name, method, list(arguments))
            return self._host.request("call", interface=self._name, method=method, arguments=list(arguments))

        # The next look-up finds it without coming here.
        self.__dict__[method] = call
        return call


class _RemoteWaits:
    """Waits, looked at from here: which of them are known to be ready."""

    def __init__(self, host: RemoteHost) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._watched: dict[int, object] = {}
        self._ready: set[int] = set()

    def take(self, wait: int) -> str | None:
        with self._changed:
            # What comes after this item is not known yet.
            self._ready.discard(wait)
            self._watched.pop(wait, None)
        value: str | None = self._host.request("take", wait=wait)
        return value

    def any(self, waits: str, seconds: float) -> str:
        wanted = unpack_ids(waits)
        for wait in wanted:
            self._watch(wait)
        with self._changed:
            self._changed.wait_for(lambda: not self._ready.isdisjoint(wanted), None if seconds < 0 else seconds)
            return pack_ids(wait for wait in wanted if wait in self._ready)

    def drop(self, wait: int) -> None:
        with self._changed:
            self._ready.discard(wait)
            self._watched.pop(wait, None)
        self._host.release("waits", "drop", [wait])

    def _watch(self, wait: int) -> None:
        with self._changed:
            if wait in self._watched:
                return
            # A new one each time: the answer about an item that was taken since says nothing about the next.
            mark = self._watched[wait] = object()
        self._host.when_ready(wait, lambda: self._is_ready(wait, mark))

    def _is_ready(self, wait: int, mark: object) -> None:
        with self._changed:
            if self._watched.get(wait) is mark:
                self._ready.add(wait)
                self._changed.notify_all()
