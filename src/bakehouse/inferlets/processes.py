"""Instances for interactive clients, who come and go: what an instance gives is kept until its client takes it.

Nothing here makes an instance wait: a client that is away, or reads slowly, finds the newest entries and how many it
missed. Entries are numbered from 1, so that a client that lost its connection can say what it has.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from bakehouse.inferlets.base import MIB, Launch, Outcome, Outlet
from bakehouse.inferlets.calls.native import NativeHost
from bakehouse.inferlets.errors import Attached, NotRunning, Refused
from bakehouse.inferlets.host import InferletHost, Instance
from bakehouse.inferlets.instances import TERMINATED
from bakehouse.inferlets.programs import Program

#: What is kept of one process: entries, bytes of those that nobody took, bytes of those that a client took.
RING, RING_BYTES, TAKEN_BYTES = 4096, 64 * MIB, MIB
#: What is kept of all processes of one owner. When it is more, each keeps `TAKEN_BYTES`, or nothing without a client.
OWNER_BYTES = 256 * MIB
#: What is kept of processes that ended: processes in all and of one owner, bytes, seconds.
KEPT, KEPT_OF_OWNER, KEPT_BYTES, KEPT_SECONDS = 4096, 256, 256 * MIB, 3600.0

Kind = Literal["message", "file", "stdout", "stderr", "gap", "ended"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a process gave. ``value`` is text, the bytes of a file, the outcome, or how many a gap misses."""

    number: int
    kind: Kind
    value: str | bytes | Outcome | int

    @property
    def size(self) -> int:
        """In bytes."""
        match self.value:
            case bytes():
                return len(self.value)
            case str():
                return _length(self.value)
            case Outcome(result, failure):
                return _length(result) + (0 if failure is None else _length(failure.message + failure.traceback))
        return 0


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Share:
    """Bytes that are kept of the processes of one owner. Thread-safe."""

    def __init__(self) -> None:
        self.bytes = 0
        self._guard = threading.Lock()

    def add(self, size: int) -> None:
        with self._guard:
            self.bytes += size


class Process(Outlet):
    """Thread-safe. One client may be attached at a time. *share* is its owner's."""

    def __init__(self, launch: Launch, on_end: Callable[[Process], None], share: Share) -> None:
        self.launch = launch
        #: Seconds since the epoch.
        self.started_at = time.time()
        self.outcome: Outcome | None = None
        #: Bytes of the entries that are kept.
        self.bytes = 0
        self._on_end, self._share = on_end, share
        self._guard = threading.Lock()
        self._instance: Instance | None = None
        self._attached: Attachment | None = None
        self._ring: deque[Entry] = deque()
        self._last = 0
        self._taken = 0

    @property
    def attached(self) -> bool:
        """Whether a client is."""
        return self._attached is not None

    def attach(self, news: Callable[[], None], after: int | None = None) -> Attachment:
        """Be its client. What is kept and was not taken comes first; *after*, what follows that number, taken or not.

        *news* is called, from any thread, when there is something to read after `Attachment.read` found nothing, or
        from the start. Raises `Attached` when it has a client.
        """
        with self._guard:
            if self._attached is not None:
                raise Attached(f"process {self.launch.id} has its client already; that one can detach")
            found = Attachment(self, news, self._taken if after is None else min(max(after, 0), self._last))
            self._attached = found
            found.idle = found.cursor >= self._last
        if not found.idle:
            news()
        return found

    def terminate(self) -> None:
        """End it soon. Nothing happens when it has ended."""
        with self._guard:
            instance = self._instance
        if instance is not None:
            instance.terminate(TERMINATED)

    # The outlet of its instance

    def message(self, text: str) -> None:
        self._put("message", text)

    def file(self, data: bytes) -> None:
        self._put("file", data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self._put(stream, text)

    def ended(self, outcome: Outcome) -> None:
        with self._guard:
            self.outcome = outcome
            self._instance = None
        self._put("ended", outcome)
        self._on_end(self)

    # For its attachment and its table

    def runs_as(self, instance: Instance) -> None:
        with self._guard:
            if self.outcome is None:
                self._instance = instance

    def instance(self) -> Instance:
        with self._guard:
            if self._instance is None:
                raise NotRunning(f"process {self.launch.id} has ended")
            return self._instance

    def read(self, reader: Attachment, most: int) -> list[Entry]:
        with self._guard:
            if self._attached is not reader:
                raise NotRunning(f"this client is not attached to process {self.launch.id} any more")
            found: list[Entry] = []
            # Numbers have no gaps but where entries were dropped, at the front.
            first = self._ring[0].number if self._ring else self._last + 1
            if reader.cursor < first - 1:
                found.append(Entry(first - 1, "gap", first - 1 - reader.cursor))
                reader.cursor = first - 1
            start = reader.cursor + 1 - first
            found += [self._ring[i] for i in range(start, min(start + most - len(found), len(self._ring)))]
            reader.idle = not found
            if found:
                reader.cursor = found[-1].number
                self._taken = max(self._taken, reader.cursor)
                self._trim()
            return found

    def be_forgotten(self) -> None:
        """It is in no table any more; what a client still reads of it is not its owner's."""
        with self._guard:
            self._share.add(-self.bytes)
            self._share = Share()
            self._share.add(self.bytes)

    def leave(self, reader: Attachment) -> None:
        with self._guard:
            if self._attached is reader:
                self._attached = None

    def _put(self, kind: Kind, value: str | bytes | Outcome) -> None:
        with self._guard:
            self._last += 1
            entry = Entry(self._last, kind, value)
            self._ring.append(entry)
            self._count(entry.size)
            self._trim()
            reader = self._attached
            wake = reader is not None and reader.idle
            if reader is not None:
                reader.idle = False
        if reader is not None and wake:
            reader.news()

    def _trim(self) -> None:
        """Drop the oldest where there is too much; the newest only where it has no client, and never its end."""
        while self._ring:
            first, crowded = self._ring[0], self._share.bytes > OWNER_BYTES
            room = TAKEN_BYTES if crowded or first.number <= self._taken else RING_BYTES
            if len(self._ring) <= RING and self.bytes <= room:
                return
            if len(self._ring) == 1 and (not crowded or self._attached is not None or first.kind == "ended"):
                return
            self._count(-first.size)
            self._ring.popleft()

    def _count(self, size: int) -> None:
        self.bytes += size
        self._share.add(size)


class Attachment:
    """A client's hold on a process. `detach` it; the process goes on."""

    def __init__(self, process: Process, news: Callable[[], None], cursor: int) -> None:
        self.process = process
        self.news = news
        #: The number of the last entry that was read.
        self.cursor = cursor
        self.idle = False

    def read(self, most: int = 64) -> list[Entry]:
        """The next entries, *most* of them; none when there are none now. The last of all is ``ended``.

        What is read counts as taken by the client; one that did not get it attaches again ``after`` what it has.
        Raises `NotRunning` after `detach`.
        """
        return self.process.read(self, most)

    def send(self, text: str) -> None:
        """A message to the program. Raises `NotRunning`, `Refused` when its queue is full."""
        self.process.instance().send(text)

    def send_file(self, data: bytes) -> None:
        self.process.instance().send_file(data)

    def detach(self) -> None:
        """May be repeated."""
        self.process.leave(self)


class Processes:
    """The processes of one host, by id. Thread-safe. Those that ended are kept for a while."""

    def __init__(self, host: InferletHost) -> None:
        self._host = host
        self._guard = threading.Lock()
        self._all: dict[str, Process] = {}
        #: Those that ended, the oldest first: when (seconds, monotonic), and their bytes then; and those of each owner.
        self._ended: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._of_owner: dict[str, OrderedDict[str, None]] = {}
        self._bytes = 0
        #: Each as long as there is a process of its owner.
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def launch(
        self, launch: Launch, program: Program | None = None, over: Callable[[], None] = lambda: None
    ) -> Process:
        """Start it, without a client. *over* is called at its end, also where it cannot start.

        Raises as `InferletHost.launch` does.
        """
        with self._new(launch, over) as process:
            self._enter(process, self._host.launch(launch, process, program))
        return process

    def open_native(self, launch: Launch, over: Callable[[], None] = lambda: None) -> tuple[Process, NativeHost]:
        """One whose program runs outside the sandbox, and the host for it, to be closed. As `launch` otherwise."""
        with self._new(launch, over) as process:
            host = self._host.open_native(launch, process)
            self._enter(process, self._host.instance(launch.id, launch.owner))
        return process, host

    def find(self, id: str, owner: str) -> Process:
        """One that runs or is kept. Raises `NotRunning`."""
        with self._guard:
            self._expire()
            found = self._all.get(id)
            if found is None or found.launch.owner != owner:
                raise NotRunning(f"there is no process {id}")
            return found

    def list(self, owner: str) -> Sequence[Process]:
        """Those that run and those that are kept, in the order of their start."""
        with self._guard:
            self._expire()
            return [process for process in self._all.values() if process.launch.owner == owner]

    @contextmanager
    def _new(self, launch: Launch, over: Callable[[], None]) -> Iterator[Process]:
        """One that is to be started inside."""

        def note_end(process: Process) -> None:
            self._note_end(process)
            over()

        try:
            self._check_id(launch.id)
            yield Process(launch, note_end, self._share(launch.owner))
        except BaseException:
            over()
            raise

    def _check_id(self, id: str) -> None:
        with self._guard:
            self._expire()
            if id in self._all:
                raise Refused(f"there is a process {id} already")

    def _enter(self, process: Process, instance: Instance) -> None:
        process.runs_as(instance)
        with self._guard:
            self._all[process.launch.id] = process
            self._keep(process)

    def _share(self, owner: str) -> Share:
        with self._guard:
            return self._shares.setdefault(owner, Share())

    def _note_end(self, process: Process) -> None:
        with self._guard:
            self._keep(process)

    # With the guard held

    def _keep(self, process: Process) -> None:
        """Note that it ended, if it did and is in the table, and make room for it."""
        id, owner = process.launch.id, process.launch.owner
        if process.outcome is None or self._all.get(id) is not process or id in self._ended:
            return
        self._ended[id] = time.monotonic(), process.bytes
        self._bytes += process.bytes
        of_owner = self._of_owner.setdefault(owner, OrderedDict())
        of_owner[id] = None
        if len(of_owner) > KEPT_OF_OWNER:
            self._drop(next(iter(of_owner)))
        while len(self._ended) > 1 and (len(self._ended) > KEPT or self._bytes > KEPT_BYTES):
            self._drop(next(iter(self._ended)))

    def _expire(self) -> None:
        until = time.monotonic() - KEPT_SECONDS
        while self._ended and next(iter(self._ended.values()))[0] <= until:
            self._drop(next(iter(self._ended)))

    def _drop(self, id: str) -> None:
        process = self._all.pop(id)
        process.be_forgotten()
        owner = process.launch.owner
        self._bytes -= self._ended.pop(id)[1]
        del self._of_owner[owner][id]
        if not self._of_owner[owner]:
            del self._of_owner[owner]
