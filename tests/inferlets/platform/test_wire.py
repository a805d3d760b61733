"""A host behind a socket: programs, instances, what they send, and the end of either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from bakehouse.core.ids import new_id
from bakehouse.engine.wire import dump
from bakehouse.inferlets import wire
from bakehouse.inferlets.base import Failure, Launch, Limits, Outcome
from bakehouse.inferlets.errors import BadProgram, NoSuchProgram, NotRunning, Refused
from bakehouse.inferlets.remote import End, Event, File, HostLost, Message, Output, RemoteHost, RemoteInstance
from bakehouse.inferlets.serve import HostServer
from bakehouse.llm.calls import offer
from bakehouse.wiring.local import DUMMY_MODEL, local_host
from tests.support.inferlets import keep_builds
from tests.support.waiting import wait_until

MANIFEST = '[package]\nname = "actor"\nversion = "1.0.0"\n'


@dataclass
class Far:
    """A host, its server and a connection to it."""

    server: HostServer
    remote: RemoteHost
    path: Path

    async def start(self, what: str, limits: Limits | None = None, **values: Any) -> RemoteInstance:
        arguments = (orjson.dumps({"do": what, **values}).decode(),)
        launch = Launch(
            id=new_id("task"), owner="me", username="me", program="actor@1.0.0", arguments=arguments,
            limits=limits or Limits(memory=64 << 20),
        )  # fmt: skip
        return await self.remote.launch(launch)


@pytest.fixture
async def far(tmp_path: Path, actor: Path) -> AsyncIterator[Far]:
    async with serving(keep_builds(tmp_path) / "inferlets") as found:
        await found.remote.install("me", MANIFEST, actor)
        yield found


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Far]:
    async with local_host([DUMMY_MODEL], folder) as local:
        server = HostServer(local.host, local.programs, folder / "host.sock")
        await server.start()
        remote = await RemoteHost.connect(folder / "host.sock")
        try:
            yield Far(server, remote, folder / "host.sock")
        finally:
            await remote.close()
            await server.close()


async def story(instance: RemoteInstance) -> list[Event]:
    async with asyncio.timeout(60):
        return [event async for event in instance.events()]


async def test_programs_are_installed_listed_and_removed(far: Far, actor: Path) -> None:
    (found,) = await far.remote.programs("me")
    assert (found["name"], found["version"], len(found["digest"])) == ("actor", "1.0.0", 64)
    assert await far.remote.programs("you") == []
    with pytest.raises(BadProgram, match=r"package\.version"):
        await far.remote.install("me", '[package]\nname = "actor"\n', actor)
    await far.remote.remove("me", "actor@1.0.0")
    with pytest.raises(NoSuchProgram):
        await far.start("nothing")


async def test_what_an_instance_gives_comes_in_order(far: Far) -> None:
    *said, end = await story(await far.start("say", messages=["a", "b"]))
    assert said == [Message("a"), Message("b")]
    assert end == End(Outcome("said"))
    written = await story(await far.start("print"))
    assert {event for event in written if isinstance(event, Output)} == {
        Output("stdout", "to stdout\n"),
        Output("stderr", "to stderr\n"),
    }


async def test_a_large_file_goes_both_ways(far: Far) -> None:
    size = 3 * wire.PART + 17
    roomy = Limits(memory=256 << 20)
    before, file, after, end = await story(await far.start("files", roomy, size=size))
    assert before == Message("before")
    assert isinstance(file, File)
    assert file.data == b"\x89PNG\r\n\x1a\n" + bytes(size)
    assert (after, end) == (Message("after"), End(Outcome("")))
    reading = await far.start("file_size", roomy)
    await reading.send_file(bytes(size))
    *_, end = await story(reading)
    assert end == End(Outcome(f'{{"size": {size}}}'))


async def test_a_file_over_the_limit_is_refused_and_the_instance_goes_on(far: Far) -> None:
    reading = await far.start("file_size", Limits(memory=64 << 20, file=1 << 20))
    with pytest.raises(Refused, match="file"):
        await reading.send_file(bytes(9 << 20))
    await reading.send_file(b"small")
    *_, end = await story(reading)
    assert end == End(Outcome('{"size": 5}'))


async def test_an_instance_waits_for_its_reader(far: Far) -> None:
    instance = await far.start("flood", count=100, size=100_000)
    other = await story(await far.start("say", messages=["past it"]))
    assert other[0] == Message("past it")
    # It may be as far ahead as the wire says, and one message more.
    assert sum(event.size for event in instance._events) <= wire.AHEAD + 100_010
    events = await story(instance)
    assert [event.text.split()[0] for event in events if isinstance(event, Message)] == [str(n) for n in range(100)]


async def test_an_instance_whose_reader_is_slow_can_be_ended(far: Far) -> None:
    instance = await far.start("flood", count=100, size=100_000)
    await asyncio.sleep(0.2)
    await instance.terminate()
    *_, end = await story(instance)
    assert isinstance(end, End)
    assert end.outcome.failure is not None
    assert end.outcome.failure.code == "cancelled"
    with pytest.raises(NotRunning):
        await instance.send("too late")


async def test_a_queue_that_is_full_says_so(far: Far) -> None:
    waiting = await far.start("loop", Limits(memory=64 << 20, queue=2))
    await waiting.send("1")
    await waiting.send("2")
    with pytest.raises(Refused) as caught:
        await waiting.send("3")
    assert caught.value.field == "queue"
    await waiting.terminate()
    await story(waiting)


async def test_what_there_is_no_room_for_now_is_offered_again(far: Far) -> None:
    waiting = await far.start("loop", Limits(memory=64 << 20, queue=2))
    await offer(waiting, bytes(40 << 20))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(offer(waiting, bytes(40 << 20)), 1)
    with pytest.raises(Refused, match="message: "):
        await offer(waiting, "x" * (2 << 20))
    await waiting.terminate()
    await story(waiting)


async def test_a_host_that_goes_takes_its_instances_with_it(far: Far) -> None:
    instance = await far.start("echo")
    await far.server.close()
    *_, end = await story(instance)
    assert isinstance(end, End)
    assert isinstance(end.lost, HostLost)
    assert "stopping" in str(end.lost)
    with pytest.raises(HostLost):
        await far.remote.stats()


async def test_a_platform_that_goes_ends_what_it_launched(far: Far) -> None:
    await far.start("echo")
    await far.start("loop")
    host = far.server.host
    assert host.stats()["instances"] == 2
    await far.remote.close()
    async with asyncio.timeout(20):
        while host.stats()["instances"]:  # noqa: ASYNC110 (the host has no event for this)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * 16,
        dump(["no object"]),
        dump({"t": "launch", "id": 1}),
        dump({"t": "hello", "version": wire.VERSION}) + dump({"t": "no such call", "id": 1}),
        dump({"t": "hello", "version": wire.VERSION}) + dump({"t": "launch", "id": 1, "launch": {"id": 3}}),
        dump({"t": "hello", "version": wire.VERSION}) + dump({"t": "send", "id": 1, "instance": 3}),
        dump({"t": "hello", "version": wire.VERSION + 1}),
    ],
)
async def test_what_is_no_message_of_ours_ends_that_connection_only(far: Far, frame: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(far.path))
    writer.write(frame)
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    assert (await story(await far.start("nothing")))[-1] == End(Outcome(""))


def test_launches_and_outcomes_are_the_same_after_the_wire() -> None:
    launch = Launch(id="a", owner="o", username="u", program="p@1.0.0", arguments=("x", "y"), limits=Limits(cpu=3))
    assert wire.read_launch(orjson.loads(orjson.dumps(wire.launch_body(launch)))) == launch
    outcome = Outcome("", Failure("limit_exceeded", "memory: 3", "memory", "trace"))
    assert wire.read_outcome(orjson.loads(orjson.dumps(wire.outcome_body(outcome)))) == outcome


async def test_one_that_waits_for_its_reader_ends_in_time(far: Far) -> None:
    """Its time is over while nobody reads what it sends."""
    instance = await far.start("flood", Limits(memory=64 << 20, wall=1.0), count=1000, size=100_000)
    await asyncio.to_thread(wait_until, lambda: not far.server.host.stats()["instances"], "its end", 20)
    last = (await story(instance))[-1]
    assert isinstance(last, End)
    assert last.outcome.failure is not None
    assert last.outcome.failure.limit == "wall"
