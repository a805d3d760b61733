"""An inferlet host over a Unix socket: instances belong to the connection that launched them, and end with it."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from threading import Condition
from typing import Any, Literal

from bakehouse.engine.channel import Listener, greet
from bakehouse.engine.errors import EngineError, LimitExceeded
from bakehouse.engine.link import Link
from bakehouse.engine.wire import Frame
from bakehouse.inferlets import wire
from bakehouse.inferlets.base import Failure, Outcome
from bakehouse.inferlets.errors import InferletError, NotRunning, Refused
from bakehouse.inferlets.host import InferletHost, Instance
from bakehouse.inferlets.programs import Program, ProgramStore
from bakehouse.inferlets.wire import WireError

_BATCH_BYTES = 4 << 20
_PATIENCE = 60.0
"""Seconds that an instance waits for its reader before it goes on all the same."""
_LOOK = 0.5
"""Seconds after which it looks whether it is to end meanwhile, of which nobody tells it here."""


class HostServer(Listener["_Client"]):
    """Serves *host* and *programs* at *path*, to this user only. Closes neither."""

    def __init__(self, host: InferletHost, programs: ProgramStore, path: Path) -> None:
        super().__init__(path)
        self.host, self.programs = host, programs

    def new_client(self) -> _Client:
        return _Client(self)

    async def close(self) -> None:
        """End all connections, and with them what was launched over them. May be repeated."""
        self.stop_listening()
        for client in list(self._clients):
            client.end("the inferlet host is stopping")
        self._path.unlink(missing_ok=True)


class _Client:
    """One connection: a task for each call, and the instances that it launched."""

    def __init__(self, server: HostServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._greeted = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._outlets: dict[str, _Outlet] = {}
        self._instances: dict[str, Instance] = {}
        self._files: dict[str, list[bytes]] = {}
        self._out: deque[list[Any]] = deque()
        self._flushing = False
        self.link = Link(self._on_frame, self._on_lost, farewell=_farewell)

    # What comes

    def _on_frame(self, link: Link, frame: Frame) -> None:
        body = frame.body
        if not self._greeted:
            greet(link, body, wire.VERSION, "host")
            self._greeted = True
            return
        if not isinstance(body, dict):
            raise WireError("a message is a JSON object")
        name = wire.text_of(body, "t")
        if name == "taken":
            self._taken(body)
            return
        method = getattr(self, f"_do_{name}", None)
        number = body.get("id")
        if method is None or not isinstance(number, int) or number < 1:
            raise WireError(f"a message {name!r} that is not known, or has no number")
        if "data" in body:
            body["data"] = wire.load_value(body["data"], frame.tail)
        task = self._loop.create_task(self._answered(number, method(body)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _taken(self, body: dict[str, Any]) -> None:
        outlet = self._outlets.get(str(body.get("instance")))
        count = body.get("count")
        if not isinstance(count, int):
            raise WireError("taken.count is not a number")
        if outlet is not None:
            outlet.taken(count)

    async def _answered(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        try:
            self.post(["r", number, await work])
        except (InferletError, EngineError) as error:
            self.post(wire.error_item(number, error))
        except WireError as error:
            self.link.close(str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A fault of ours: the log gets the stack, the caller an answer, the others go on.
            traceback.print_exc(file=sys.stderr)
            told = InferletError(f"the inferlet host failed: {type(error).__name__}: {error}")
            self.post(wire.error_item(number, told))

    # Calls

    async def _do_install(self, body: dict[str, Any]) -> dict[str, Any]:
        path = Path(wire.text_of(body, "path"))

        def install() -> Program:
            return self._server.programs.install(
                wire.text_of(body, "owner"),
                wire.text_of(body, "manifest"),
                path.read_bytes(),
                force=bool(body["force"]),
            )

        return program_body(await self._loop.run_in_executor(self._server.programs.installers, install))

    async def _do_programs(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(self._server.programs.list, wire.text_of(body, "owner"))
        return [program_body(program) for program in found]

    async def _do_remove(self, body: dict[str, Any]) -> None:
        owner, program = wire.text_of(body, "owner"), wire.text_of(body, "program")
        await asyncio.to_thread(self._server.programs.remove, owner, program)

    async def _do_launch(self, body: dict[str, Any]) -> None:
        if self._server.stopping:
            raise Refused("the inferlet host is stopping")
        launch = wire.read_launch(body["launch"])
        outlet = self._outlets[launch.id] = _Outlet(self, launch.id)
        owner = wire.text_of(body, "program_owner")
        try:
            program = self._server.programs.find(owner, launch.program)
            self._instances[launch.id] = self._server.host.launch(launch, outlet, program)
        except BaseException:
            self._outlets.pop(launch.id, None)
            raise
        if outlet.over:  # it was faster than this line
            self._forget(launch.id)
        elif not self.link.open:
            self._instances[launch.id].terminate()

    async def _do_send(self, body: dict[str, Any]) -> None:
        self._instance(body).send(wire.text_of(body, "text"))

    async def _do_send_file(self, body: dict[str, Any]) -> None:
        instance = self._instance(body)
        parts = self._files.setdefault(instance.launch.id, [])
        parts.append(body["data"])
        if sum(map(len, parts)) > instance.launch.limits.file:
            del self._files[instance.launch.id]
            raise Refused(f"the file is over the limit file ({instance.launch.limits.file} bytes)")
        if not body["more"]:
            instance.send_file(b"".join(self._files.pop(instance.launch.id)))

    async def _do_terminate(self, body: dict[str, Any]) -> None:
        instance = self._instances.get(wire.text_of(body, "instance"))
        if instance is not None:
            self._outlets[instance.launch.id].release()
            instance.terminate(Failure(wire.text_of(body, "code"), wire.text_of(body, "message")))

    async def _do_stats(self, body: dict[str, Any]) -> dict[str, Any]:
        del body
        return self._server.host.stats()

    def _instance(self, body: dict[str, Any]) -> Instance:
        try:
            return self._instances[wire.text_of(body, "instance")]
        except KeyError:
            raise NotRunning(f"no instance {body['instance']!r} of this connection runs") from None

    def is_ending(self, identity: str) -> bool:
        """Whether an instance of that id is to end. From any thread."""
        instance = self._instances.get(identity)
        return instance is not None and instance.guest.failure is not None

    def ended(self, identity: str) -> None:
        """Of an instance, from the loop, after its end was sent."""
        if identity in self._instances:
            self._forget(identity)

    def _forget(self, identity: str) -> None:
        self._instances.pop(identity, None)
        self._outlets.pop(identity, None)
        self._files.pop(identity, None)

    # What goes

    def post(self, item: list[Any]) -> None:
        """Send *item* soon. From any thread; items of one thread keep their order."""
        self._out.append(item)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        # Before the first look: what comes from now on asks for another flush.
        self._flushing = False
        while self._out:
            batch, size = [], 0
            while self._out and size < _BATCH_BYTES:
                batch.append(self._out.popleft())
                size += _size(batch[-1])
            if self.link.open:
                self._write(batch)
            for item in batch:
                if item[0] == "x":
                    self.ended(item[1])

    def _write(self, batch: list[list[Any]]) -> None:
        try:
            self.link.send(wire.dump(batch))
        except (LimitExceeded, TypeError, ValueError) as error:
            self.link.close(f"what was to be sent cannot be: {error}")

    # The end

    def _on_lost(self, link: Link, reason: str) -> None:
        if reason and not self._server.stopping:
            print(f"a client's connection ended: {reason}", file=sys.stderr)
        self._free()

    def end(self, reason: str) -> None:
        self._flush()
        self.link.close(reason)
        self._free()

    def _free(self) -> None:
        """End what it launched. May be repeated."""
        self._server.forget(self)
        for outlet in self._outlets.values():
            outlet.release()
        for instance in list(self._instances.values()):
            instance.terminate(Failure("cancelled", "its client's connection ended"))


class _Outlet:
    """Sends what an instance gives. Its thread waits here while its reader is too far behind."""

    def __init__(self, client: _Client, identity: str) -> None:
        self.over = False
        self._client, self._identity = client, identity
        self._news = Condition()
        self._ahead = 0
        self._released = False

    def message(self, text: str) -> None:
        self._put(["m", self._identity, text], len(text))

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._put(["o", self._identity, stream, text], len(text))

    def file(self, data: bytes) -> None:
        for start in range(0, max(len(data), 1), wire.PART):
            part = data[start : start + wire.PART]
            self._put(["f", self._identity, part, start + wire.PART < len(data)], len(part))

    def ended(self, outcome: Outcome) -> None:
        self.over = True
        self._client.post(["x", self._identity, wire.outcome_body(outcome)])

    def _put(self, item: list[Any], size: int) -> None:
        self._client.post(item)
        with self._news:
            self._ahead += size
            until = time.monotonic() + _PATIENCE
            while self._waits() and time.monotonic() < until:
                self._news.wait(_LOOK)

    def _waits(self) -> bool:
        return self._ahead > wire.AHEAD and not self._released and not self._client.is_ending(self._identity)

    def taken(self, count: int) -> None:
        """The reader took *count* bytes more."""
        with self._news:
            self._ahead -= count
            self._news.notify_all()

    def release(self) -> None:
        """Nobody reads any more, or the instance is to end."""
        with self._news:
            self._released = True
            self._news.notify_all()


def program_body(program: Program) -> dict[str, Any]:
    """What is told of an installed program."""
    manifest = program.manifest
    return {
        "name": manifest.name,
        "version": str(manifest.version),
        "description": manifest.description,
        "digest": program.digest,
    }


def _size(item: list[Any]) -> int:
    return sum(_length(part) for part in item)


def _length(part: Any) -> int:
    if isinstance(part, dict):
        return sum(map(_length, part.values()))
    return len(part) if isinstance(part, str | bytes) else 0


def _farewell(reason: str) -> bytes:
    return wire.dump([wire.error_item(0, InferletError(f"the inferlet host closed the connection: {reason}"))])
