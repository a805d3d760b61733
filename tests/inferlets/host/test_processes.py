"""Processes: what they give while their client is away, slow, or gone for good."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bakehouse.inferlets import processes as room
from bakehouse.inferlets.base import Outcome
from bakehouse.inferlets.errors import Attached, NotRunning, Refused
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.processes import Attachment, Entry, Process, Processes, Share
from tests.inferlets.host.support import launch

Begin = Callable[..., Process]


class Client:
    """Reads all that comes."""

    def __init__(self, process: Process, after: int | None = None) -> None:
        self.entries: list[Entry] = []
        self.rung = 0
        self._news = threading.Semaphore(0)
        self.attachment: Attachment = process.attach(self._ring, after)

    def _ring(self) -> None:
        self.rung += 1
        self._news.release()

    def read_to(self, kind: str, count: int = 1) -> list[object]:
        """Until there are *count* entries of *kind*; their values."""
        while len(self.of(kind)) < count:
            while found := self.attachment.read():
                self.entries += found
            if len(self.of(kind)) < count:
                assert self._news.acquire(timeout=30), f"got only {self.entries}"
        return self.of(kind)

    def of(self, kind: str) -> list[object]:
        return [entry.value for entry in self.entries if entry.kind == kind]


@pytest.fixture
def processes(host: InferletHost) -> Processes:
    return Processes(host)


@pytest.fixture
def begin(processes: Processes) -> Begin:
    return lambda *arguments, **options: processes.launch(launch("tool", *arguments, **options))


@pytest.fixture
def alone() -> Process:
    """A process without an instance, to be given entries."""
    return Process(launch("none"), lambda process: None, Share())


def texts(entries: list[Entry]) -> list[object]:
    return [entry.value for entry in entries]


def test_a_client_gets_all_in_order(begin: Begin) -> None:
    client = Client(begin("repeat"))
    for text in ("one", "two", "stop"):
        client.attachment.send(text)
    assert client.read_to("ended") == [Outcome("stopped")]
    assert texts(client.entries) == ["one", "two", Outcome("stopped")]
    assert [entry.number for entry in client.entries] == [1, 2, 3]


def test_files_go_both_ways(begin: Begin) -> None:
    client = Client(begin("file"))
    client.attachment.send_file(b"abc")
    assert client.read_to("file") == [b"cba"]


def test_what_came_while_nobody_was_there_is_replayed(begin: Begin, processes: Processes) -> None:
    process = begin("print", "one", "two")
    while process.outcome is None:
        threading.Event().wait(0.01)
    client = Client(processes.find(process.launch.id, "ada"))
    assert client.read_to("ended") == [Outcome("")]
    assert client.of("stdout") == ["one\n", "two\n"]


def test_one_client_at_a_time(begin: Begin) -> None:
    process = begin("repeat")
    first = Client(process)
    with pytest.raises(Attached):
        Client(process)
    first.attachment.send("one")
    assert first.read_to("message") == ["one"]
    first.attachment.detach()
    first.attachment.detach()
    with pytest.raises(NotRunning):
        first.attachment.read()
    assert process.outcome is None and not process.attached
    second = Client(process)
    second.attachment.send("two")
    assert second.read_to("message") == ["two"]
    process.terminate()
    outcome = second.read_to("ended")[0]
    assert isinstance(outcome, Outcome) and outcome.failure is not None
    assert outcome.failure.code == "cancelled"
    process.terminate()
    with pytest.raises(NotRunning):
        second.attachment.send("three")


def test_a_client_that_says_what_it_has_gets_the_rest(alone: Process) -> None:
    for text in "abcde":
        alone.message(text)
    first = Client(alone)
    assert texts(first.attachment.read(3)) == ["a", "b", "c"]
    first.attachment.detach()
    # It got "a" only before it lost its connection.
    second = Client(alone, after=1)
    assert texts(second.attachment.read()) == ["b", "c", "d", "e"]
    second.attachment.detach()
    assert texts(Client(alone).attachment.read()) == []


def test_what_is_dropped_is_counted(alone: Process) -> None:
    for number in range(room.RING + 10):
        alone.message(str(number))
    client = Client(alone)
    entries = client.attachment.read(2)
    assert entries == [Entry(10, "gap", 10), Entry(11, "message", "10")]
    # A slow reader loses the oldest, too.
    for number in range(room.RING):
        alone.message(str(number))
    assert client.attachment.read(1) == [Entry(room.RING + 10, "gap", room.RING - 1)]
    rest = client.attachment.read(room.RING + 1)
    assert texts(rest) == [str(number) for number in range(room.RING)]


def test_many_bytes_are_dropped_earlier(alone: Process) -> None:
    part = bytes(room.RING_BYTES // 4)
    for _ in range(6):
        alone.file(part)
    assert alone.bytes == room.RING_BYTES
    client = Client(alone)
    assert [entry.kind for entry in client.attachment.read()] == ["gap", "file", "file", "file", "file"]
    # What was taken is kept for a client that lost its connection, but not much of it.
    alone.message("end")
    assert alone.bytes <= room.TAKEN_BYTES


def test_the_end_is_never_dropped(alone: Process) -> None:
    alone.file(bytes(room.RING_BYTES))
    alone.ended(Outcome("over"))
    assert texts(Client(alone).attachment.read())[-1] == Outcome("over")


def test_what_an_owners_processes_keep_together_is_bounded() -> None:
    share = Share()
    first, second, third = (Process(launch("none"), lambda process: None, share) for _ in range(3))
    listening = Client(third)
    for process in (first, second, third):
        for _ in range(room.OWNER_BYTES // room.RING_BYTES):
            process.file(bytes(room.RING_BYTES // 2))
    assert share.bytes == first.bytes + second.bytes + third.bytes <= 1.5 * room.OWNER_BYTES
    for _ in range(10):
        for process in (first, second):
            process.file(bytes(room.RING_BYTES))
        third.message("x" * room.RING_BYTES)
    assert share.bytes == first.bytes + second.bytes + third.bytes <= room.OWNER_BYTES
    assert listening.read_to("message") == ["x" * room.RING_BYTES]
    second.ended(Outcome("done"))
    last = Client(second)
    assert last.read_to("ended") == [Outcome("done")]
    for process in (first, second, third):
        process.be_forgotten()
    assert share.bytes == 0


def test_bytes_are_counted_and_not_characters(alone: Process) -> None:
    alone.message("\N{EURO SIGN}" * 10)
    alone.ended(Outcome("ü"))
    assert alone.bytes == 32


def test_news_are_told_once_for_many(alone: Process) -> None:
    client = Client(alone)
    assert client.rung == 0
    assert client.attachment.read() == []
    for text in "abc":
        alone.message(text)
    assert client.rung == 1
    assert len(client.attachment.read(2)) == 2
    alone.message("d")
    assert client.rung == 1
    assert len(client.attachment.read()) == 2 and client.attachment.read() == []
    alone.message("e")
    assert client.rung == 2


def test_owners_see_their_own(begin: Begin, processes: Processes) -> None:
    ours, theirs = begin("receive"), begin("receive", owner="bob")
    assert processes.list("ada") == [ours]
    with pytest.raises(NotRunning):
        processes.find(theirs.launch.id, "ada")
    for each in (ours, theirs):
        each.terminate()


def test_an_id_is_used_once(processes: Processes) -> None:
    wanted = launch("tool", "echo")
    client = Client(processes.launch(wanted))
    client.read_to("ended")
    with pytest.raises(Refused, match="already"):
        processes.launch(wanted)


def test_some_that_ended_are_kept(begin: Begin, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT_OF_OWNER", 2)
    ended = [begin("echo", str(number)) for number in range(3)]
    other = begin("echo", owner="bob")
    running = begin("receive")
    for process in (*ended, other):
        Client(process).read_to("ended")
    last_three = {each.launch.id for each in ended}
    kept = [each.launch.id for each in processes.list("ada")]
    assert len(kept) == 3 and running.launch.id in kept and len(last_three & set(kept)) == 2
    assert processes.list("bob") == [other]
    monkeypatch.setattr(room, "KEPT_SECONDS", 0.0)
    assert processes.list("ada") == [running]
    assert processes.list("bob") == []
    running.terminate()


def test_what_ended_takes_no_more_than_so_many_bytes(
    begin: Begin, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "KEPT_BYTES", 10)
    for text in ("123456", "abcdef"):
        Client(begin("print", text)).read_to("ended")
    assert len(processes.list("ada")) == 1


def test_a_native_program_is_a_process_too(processes: Processes) -> None:
    wanted = launch("native")
    process, host = processes.open_native(wanted)
    assert processes.find(wanted.id, "ada") is process
    client = Client(process)
    host.client.send("hello")
    assert client.read_to("message") == ["hello"]
    client.attachment.send("and you")
    assert host.waits.take(host.client.receive()) == "and you"
    host.close()
    assert client.read_to("ended") == [Outcome("")]


def test_a_launch_that_is_refused_leaves_no_process(begin: Begin, processes: Processes, host: InferletHost) -> None:
    host.close()
    with pytest.raises(Refused):
        begin("echo")
    assert processes.list("ada") == []
