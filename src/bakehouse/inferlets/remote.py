"""An inferlet host in another process, over its Unix socket. For one event loop; loads neither wasmtime nor torch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bakehouse.engine.channel import Channel, Peer, Why
from bakehouse.inferlets import wire
from bakehouse.inferlets.base import Launch, Outcome
from bakehouse.inferlets.errors import InferletError
from bakehouse.inferlets.wire import WireError

_QUESTIONS = 3
"""So many stay unanswered before a host is silent: when the machine wakes from a sleep, the first one seems to be."""


class HostLost(InferletError):
    """The host's process died or its socket closed, and all its instances with it."""

    code = "instance_lost"


class HostSilent(HostLost):
    """It is there and does not answer."""


@dataclass(frozen=True, slots=True)
class Message:
    """What an instance sent to its client."""

    text: str

    @property
    def size(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class File:
    """A file that it sent. ``size`` is what is left to be counted as taken."""

    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Output:
    """What it wrote: a line with its end, or a part of one that is long."""

    stream: Literal["stdout", "stderr"]
    text: str

    @property
    def size(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class End:
    """Its end. ``lost`` where the host went with it; the outcome then says how that ended."""

    outcome: Outcome
    lost: HostLost | None = None
    size: int = 0


Event = Message | File | Output | End


PEER = Peer("inferlet host", wire.VERSION, lost=HostLost, silent=HostSilent, read_error=wire.read_error)


class RemoteHost:
    """Made by `connect`. Every call may raise `HostLost`, and what the host itself answers."""

    def __init__(self, why: Why | None) -> None:
        self._channel = Channel(PEER, self._on_item, self._on_over, why)
        self._instances: dict[str, RemoteInstance] = {}

    @classmethod
    async def connect(cls, path: Path, why: Why | None = None, timeout: float = 30.0) -> RemoteHost:
        """Connect to the host that listens at *path*.

        Raises `HostLost` where none does, or one of another version; `HostSilent` after *timeout* seconds.
        """
        host = cls(why)
        await host._channel.connect(path, timeout)
        return host

    @property
    def open(self) -> bool:
        """Whether calls can be made."""
        return self._channel.open

    async def ended(self) -> None:
        """Wait until the connection is over, however it ended."""
        await self._channel.over()

    async def watch(self, silence: float) -> None:
        """The same. Raises `HostSilent` when the host has answered nothing for *silence* seconds."""
        pause, missed = silence / _QUESTIONS, 0
        while self.open:
            try:
                await asyncio.wait_for(self.stats(), pause)
            except HostLost:
                break
            except TimeoutError:
                missed += 1
                if missed == _QUESTIONS:
                    raise HostSilent(f"the inferlet host did not answer for {silence:g} s") from None
                continue
            missed = 0
            with suppress(TimeoutError):  # it is time for the next question
                await asyncio.wait_for(self.ended(), pause)
        await self.ended()

    # Programs

    async def install(self, owner: str, manifest: str, wasm: Path, *, force: bool = False) -> dict[str, Any]:
        """Install the component at *wasm*, a path that the host can read; what `programs` says of it.

        It is compiled before this returns. Raises `BadProgram`, also for a version that has other content already.
        """
        told = {"owner": owner, "manifest": manifest, "path": str(wasm), "force": force}
        return dict(await self._ask("install", told))

    async def programs(self, owner: str) -> list[dict[str, Any]]:
        """What is installed for *owner*: name, version, description, digest of each."""
        return list(await self._ask("programs", {"owner": owner}))

    async def remove(self, owner: str, program: str) -> None:
        """Forget a program. Raises `NoSuchProgram`."""
        await self._ask("remove", {"owner": owner, "program": program})

    # Instances

    async def launch(self, launch: Launch, program_owner: str | None = None) -> RemoteInstance:
        """Start a program of *program_owner* (the launch's owner when None) for the launch's owner.

        Raises `Refused`, `NoSuchProgram`.
        """
        instance = RemoteInstance(self, launch)
        if launch.id in self._instances:
            raise ValueError(f"instance {launch.id!r} was launched already")
        self._instances[launch.id] = instance
        try:
            await self._ask(
                "launch", {"launch": wire.launch_body(launch), "program_owner": program_owner or launch.owner}
            )
        except BaseException:
            self._instances.pop(launch.id, None)
            raise
        return instance

    async def stats(self) -> dict[str, Any]:
        """Numbers of the host by name."""
        return dict(await self._ask("stats", {}))

    async def close(self) -> None:
        """Close the connection; the host ends what was launched over it."""
        self._channel.close()

    # Asking

    async def call(self, name: str, instance: str, **told: Any) -> Any:
        return await self._ask(name, {"instance": instance, **told})

    async def _ask(self, name: str, told: dict[str, Any]) -> Any:
        number = self._channel.number()
        return await self._channel.ask(number, {"t": name, "id": number, **told})

    def took(self, instance: str, count: int) -> None:
        self._channel.send({"t": "taken", "instance": instance, "count": count})

    # What comes

    def _on_item(self, kind: str, which: Any, rest: list[Any], tail: memoryview) -> None:
        instance = self._instances.get(which)
        if instance is None:
            return  # its launch was given up
        if kind == "m":
            instance.put(Message(rest[0]))
        elif kind == "o":
            instance.put(Output(rest[0], rest[1]))
        elif kind == "f":
            instance.put_part(wire.load_value(rest[0], tail), more=rest[1])
        elif kind == "x":
            del self._instances[which]
            instance.put(End(wire.read_outcome(rest[0])))
        else:
            raise WireError(f"an item of kind {kind!r}")

    def _on_over(self, text: str) -> None:
        instances, self._instances = self._instances, {}
        for instance in instances.values():
            instance.put(End(Outcome(), HostLost(text)))


class RemoteInstance:
    """One running program. Iterate over its events once; the last one is its `End`."""

    def __init__(self, host: RemoteHost, launch: Launch) -> None:
        self.launch = launch
        self._host = host
        self._events: deque[Event] = deque()
        self._parts: list[bytes] = []
        self._news = asyncio.Event()

    async def send(self, text: str) -> None:
        """Deliver a message. Raises `Refused` when the instance has not read enough of those before, `NotRunning`."""
        await self._host.call("send", self.launch.id, text=text)

    async def send_file(self, data: bytes) -> None:
        """Deliver a file. Raises as `send` does."""
        for start in range(0, max(len(data), 1), wire.PART):
            part = data[start : start + wire.PART]
            more = start + wire.PART < len(data)
            await self._host.call("send_file", self.launch.id, data=part, more=more)

    async def terminate(self, code: str = "cancelled", message: str = "it was cancelled") -> None:
        """End it, at once where it waits. Nothing happens when it has ended."""
        await self._host.call("terminate", self.launch.id, code=code, message=message)

    async def events(self) -> AsyncIterator[Event]:
        """What it sends, writes, and its end. Taking an event makes room for the next ones."""
        while True:
            while not self._events:
                self._news.clear()
                await self._news.wait()
            event = self._events.popleft()
            if event.size:
                self._host.took(self.launch.id, event.size)
            yield event
            if isinstance(event, End):
                return

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def put_part(self, data: bytes, *, more: bool) -> None:
        """Parts are taken as they come, so that a large file does not hold itself up."""
        self._parts.append(data)
        if more:
            self._host.took(self.launch.id, len(data))
            return
        parts, self._parts = self._parts, []
        self.put(File(b"".join(parts), len(data)))
