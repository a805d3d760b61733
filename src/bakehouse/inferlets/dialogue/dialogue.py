"""One client's dialogue: its requests in, answers and events out. It knows no socket: frames come and go as values."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any

import bakehouse
from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.base import Launch
from bakehouse.inferlets.dialogue import fields as of
from bakehouse.inferlets.dialogue import frames
from bakehouse.inferlets.dialogue.base import Desk, Who
from bakehouse.inferlets.dialogue.fields import BadRequest, Field
from bakehouse.inferlets.dialogue.frames import Assembly, BadFrame, Frame, Whole
from bakehouse.inferlets.dialogue.listening import Listening
from bakehouse.inferlets.dialogue.native import NativeCalls
from bakehouse.inferlets.dialogue.outgoing import Outgoing
from bakehouse.inferlets.dialogue.relay import Relay
from bakehouse.inferlets.dialogue.terms import installed, shown, tighter
from bakehouse.inferlets.errors import InferletError, NotRunning, Refused
from bakehouse.inferlets.processes import Attachment, Process
from bakehouse.inferlets.programs import MAX_WASM

log = logging.getLogger(__name__)

PROTOCOL = 1
#: Requests of one client that may be unanswered.
MOST_OPEN = 4096
#: Their bytes: one program that is installed, and a frame.
MOST_OPEN_BYTES = MAX_WASM + frames.MAX_FRAME


class Forbidden(InferletError):
    code = "insufficient_scope"


class Dialogue:
    """Of one event loop. `feed` it what the client sends, send what `take` gives, `close` it when the client is gone.

    Processes go on when it closes; a native program of it ends.
    """

    def __init__(self, desk: Desk, who: Who) -> None:
        self._desk, self._who = desk, who
        self._out = Outgoing()
        self._assembly = Assembly(self._most_bytes, desk.room)
        self._listening: dict[str, Listening] = {}
        self._relay = Relay(self._out)
        self._native: NativeCalls | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_bytes = 0

    def listen(self, news: Callable[[], None]) -> None:
        """From now on *news* is called when there is something to `take`, which may be while it is fed."""
        self._out.listen(news)

    @property
    def crowded(self) -> bool:
        """Whether it is to be fed no more until its client has read some answers."""
        return self._out.crowded

    def feed(self, frame: Frame) -> None:
        """Take one frame of the client. Never raises for what is wrong with it: that is its answer."""
        for found in self._assembly.feed(frame):
            if isinstance(found, BadFrame):
                self._out.answer(frames.refusal(found.id, found.code, found.detail))
            else:
                self._whole(found, max(len(frame), len(found.data)))

    def _whole(self, whole: Whole, size: int) -> None:
        if "reply" in whole.head:
            self._relay.answered(whole.head)
        elif whole.id is None:
            self._out.answer(frames.refusal(None, "bad_frame", "id: each request has a number from 0 on"))
        else:
            self._begin(whole.id, whole, size)

    def take(self) -> list[Frame]:
        """The next frames for the client; none where there are none now."""
        return self._out.take()

    async def close(self) -> None:
        """May be repeated."""
        self._out.close()
        self._assembly.close()
        for task in list(self._tasks):
            task.cancel()
        for listening in list(self._listening.values()):
            listening.attachment.detach()
        self._listening.clear()
        self._relay.close()
        self._desk.relays.drop(self._relay)
        if self._native is not None:
            await self._native.close()

    # Requests

    def _begin(self, number: int, whole: Whole, size: int) -> None:
        """Answer the request, of *size* bytes, now where that needs no waiting, else in a task of its own."""
        try:
            found = self._called(whole)
        except (InferletError, EngineError) as error:
            self._refuse(number, error)
        except Exception:
            self._fail(number, whole.head)
        else:
            if isinstance(found, Mapping):
                self._out.answer(frames.answer(number, found))
            else:
                self._later(number, whole.head, size, found)

    def _called(self, whole: Whole) -> Mapping[str, Any] | Coroutine[Any, Any, Mapping[str, Any]]:
        op = self._op(whole.head)
        values = of.read_fields(whole.head, op.fields)
        if op.bytes:
            values["data"] = whole.data
        found: Mapping[str, Any] | Coroutine[Any, Any, Mapping[str, Any]] = op.run(self, **values)
        return found

    def _op(self, head: dict[str, Any]) -> _Op:
        """Raises `BadRequest`, `Forbidden`."""
        name = head.get("op")
        op = _OPS.get(name) if isinstance(name, str) else None
        if op is None:
            raise BadRequest(f"op: must be one of {', '.join(_OPS)}, not {name!r}", field="op")
        if not self._who.may(op.scope):
            raise Forbidden(f"this key lacks the scope {op.scope!r}, which {name} needs")
        return op

    def _later(
        self, number: int, head: dict[str, Any], size: int, work: Coroutine[Any, Any, Mapping[str, Any]]
    ) -> None:
        if len(self._tasks) >= MOST_OPEN or self._open_bytes + size > MOST_OPEN_BYTES:
            work.close()
            text = f"at most {MOST_OPEN} requests may be unanswered, and {MOST_OPEN_BYTES} bytes of them"
            self._refuse(number, Refused(text))
            return
        self._open_bytes += size

        async def run() -> None:
            try:
                self._out.answer(frames.answer(number, await work))
            except (InferletError, EngineError) as error:
                self._refuse(number, error)
            except Exception:
                self._fail(number, head)
            finally:
                self._open_bytes -= size

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if getcoroutinestate(work) == CORO_CREATED:  # cancelled before it began
                self._open_bytes -= size
                work.close()

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(over)

    def _refuse(self, number: int, error: InferletError | EngineError) -> None:
        self._out.answer(frames.refusal(number, error.code, error.detail))

    def _fail(self, number: int, head: dict[str, Any]) -> None:
        """A fault of ours: its stack is for the log."""
        log.exception("a request of a client failed: %s", head.get("op"))
        self._out.answer(frames.refusal(number, "internal_error", "the server failed to answer; its log tells more"))

    def _most_bytes(self, head: dict[str, Any]) -> int:
        op = self._op(head)
        return 0 if op.bytes is None else op.bytes(self._desk)

    # Operations: each gives its result, or a coroutine that does

    def _hello(self) -> Mapping[str, Any]:
        who = self._who
        return {
            "protocol": PROTOCOL,
            "version": bakehouse.__version__,
            "owner": who.owner,
            "username": who.username,
            "scopes": sorted(who.scopes),
            "limits": asdict(self._desk.limits),
        }

    def _ping(self) -> Mapping[str, Any]:
        return {}

    def _launch(self, program: str, arguments: list[str], attach: bool, limits: dict[str, float]) -> Mapping[str, Any]:
        found = self._desk.programs.find(self._who.owner, program)
        launch = self._launch_of(found.ref, arguments, limits)
        process = self._desk.processes.launch(launch, found, self._relayed(launch.id))
        if attach:
            self._listen(process, None)
        return {"process": launch.id, "program": found.ref}

    def _relayed(self, id: str) -> Callable[[], None]:
        """The process *id* may ask the MCP servers of this client, until what is returned is called."""
        self._desk.relays.add(id, self._relay)
        return partial(self._desk.relays.drop, self._relay, id)

    def _launch_of(self, program: str, arguments: list[str], limits: dict[str, float]) -> Launch:
        return Launch(
            id=str(uuid.uuid4()),
            owner=self._who.owner,
            username=self._who.username,
            program=program,
            arguments=tuple(arguments),
            limits=tighter(self._desk.limits, limits),
        )

    def _attach(self, process: str, after: int | None) -> Mapping[str, Any]:
        found = self._desk.processes.find(process, self._who.owner)
        self._listen(found, after)
        return {"process": process, "program": found.launch.program}

    def _listen(self, process: Process, after: int | None) -> None:
        listening = Listening(process, self._left)
        listening.attach(self._out.bell(listening), after)
        self._listening[process.launch.id] = listening

    def _left(self, process: str) -> None:
        self._listening.pop(process, None)

    def _detach(self, process: str) -> Mapping[str, Any]:
        self._attached(process).detach()
        self._left(process)
        return {}

    def _signal(self, process: str, text: str) -> Mapping[str, Any]:
        self._attached(process).send(text)
        return {}

    def _file(self, process: str, data: bytes) -> Mapping[str, Any]:
        self._attached(process).send_file(data)
        return {}

    def _attached(self, process: str) -> Attachment:
        """Only its client speaks to a process."""
        found = self._listening.get(process)
        if found is None:
            raise NotRunning(f"this client is not attached to a process {process!r} that runs")
        return found.attachment

    def _terminate(self, process: str) -> Mapping[str, Any]:
        self._desk.processes.find(process, self._who.owner).terminate()
        return {}

    def _list(self) -> Mapping[str, Any]:
        return {"processes": [shown(process) for process in self._desk.processes.list(self._who.owner)]}

    def _programs(self) -> Mapping[str, Any]:
        return {"programs": [installed(program) for program in self._desk.programs.list(self._who.owner)]}

    def _program(self, program: str) -> Mapping[str, Any]:
        found = self._desk.programs.find(self._who.owner, program)
        return {**installed(found), "input_schema": found.manifest.input_schema()}

    async def _install(self, manifest: str, force: bool, data: bytes) -> Mapping[str, Any]:
        programs = self._desk.programs
        install = partial(programs.install, self._who.owner, manifest, data, force=force)
        program = await asyncio.get_running_loop().run_in_executor(programs.installers, install)
        return {"program": program.ref, "digest": program.digest}

    async def _remove(self, program: str) -> Mapping[str, Any]:
        await asyncio.to_thread(self._desk.programs.remove, self._who.owner, program)
        return {}

    def _register_mcp(self, name: str) -> Mapping[str, Any]:
        self._relay.register(name)
        return {}

    # Of a native program

    async def _open(self) -> Mapping[str, Any]:
        if self._native is not None:
            raise BadRequest("this client has a native program already; another one needs a connection of its own")
        launch = self._launch_of("native", [], {})
        process, host = self._desk.processes.open_native(launch, self._relayed(launch.id))
        self._native = NativeCalls(host, self._out.room)
        self._listen(process, None)
        return {"process": launch.id}

    async def _call(self, interface: str, method: str, arguments: list[Any]) -> Mapping[str, Any]:
        return {"value": await self._opened().call(interface, method, arguments)}

    async def _take(self, wait: int) -> Mapping[str, Any]:
        return {"value": await self._opened().take(wait)}

    async def _watch(self, wait: int) -> Mapping[str, Any]:
        await self._opened().watch(wait)
        return {}

    def _opened(self) -> NativeCalls:
        if self._native is None:
            raise BadRequest("this client has no native program; ask for open first")
        return self._native


@dataclass(frozen=True, slots=True)
class _Op:
    """One operation: what it needs and takes. *bytes*: how many may follow it; None: none do."""

    run: Callable[..., Any]
    fields: Mapping[str, Field] = field(default_factory=dict)
    scope: str = "run"
    bytes: Callable[[Desk], int] | None = None


_PROCESS = {"process": of.text()}
_WAIT = {"wait": of.count()}
_OPS: dict[str, _Op] = {
    "hello": _Op(Dialogue._hello),
    "ping": _Op(Dialogue._ping),
    "launch": _Op(
        Dialogue._launch,
        {"program": of.text(), "arguments": of.texts([]), "attach": of.flag(True), "limits": of.numbers({})},
    ),
    "attach": _Op(Dialogue._attach, {**_PROCESS, "after": of.count(None)}),
    "detach": _Op(Dialogue._detach, _PROCESS),
    "signal": _Op(Dialogue._signal, {**_PROCESS, "text": of.text()}),
    "file": _Op(Dialogue._file, _PROCESS, bytes=lambda desk: desk.limits.file),
    "terminate": _Op(Dialogue._terminate, _PROCESS),
    "list": _Op(Dialogue._list),
    "programs": _Op(Dialogue._programs),
    "program": _Op(Dialogue._program, {"program": of.text()}),
    "install": _Op(
        Dialogue._install,
        {"manifest": of.text(), "force": of.flag(False)},
        scope="deploy",
        bytes=lambda _: MAX_WASM,
    ),
    "remove": _Op(Dialogue._remove, {"program": of.text()}, scope="deploy"),
    "register_mcp": _Op(Dialogue._register_mcp, {"name": of.text()}),
    "open": _Op(Dialogue._open),
    "call": _Op(Dialogue._call, {"interface": of.text(), "method": of.text(), "arguments": of.plain([])}),
    "take": _Op(Dialogue._take, _WAIT),
    "watch": _Op(Dialogue._watch, _WAIT),
}
