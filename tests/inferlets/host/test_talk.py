"""Frames between two processes: whole, in order, and no more of them than the reader has room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bakehouse.inferlets.talk import MAX_FRAME, Frame, RemoteDialogue, Stream
from tests.support.waiting import wait_until

Pair = tuple[Stream, Stream]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two ends of one connection."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Stream] = loop.create_future()
    server = await loop.create_unix_server(lambda: Stream(made.set_result), str(tmp_path / "socket"))
    _, here = await loop.create_unix_connection(Stream, str(tmp_path / "socket"))
    yield here, await made
    server.close()
    for end in (here, await made):
        end.drop()
        await end.closed()


async def until(true: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, true, "the frames", 20)


async def settled() -> None:
    """Whatever could go on has gone on."""
    for _ in range(50):
        await asyncio.sleep(0.001)


def nothing() -> None:
    pass


async def test_frames_come_whole_and_in_order(pair: Pair) -> None:
    here, there = pair
    sent: list[Frame] = ["", b"", "ümlaut", bytes(300_000), "x" * 100_000, b"\xff"]
    got: list[Frame] = []
    for frame in sent:
        here.write(frame)
    there.begin(got.append, nothing)
    await until(lambda: len(got) == len(sent))
    assert got == sent


async def test_a_reader_that_pauses_gets_the_rest_later(pair: Pair) -> None:
    here, there = pair
    got: list[Frame] = []

    def take(frame: Frame) -> None:
        got.append(frame)
        if frame == "stop":
            there.pause()

    there.begin(take, nothing)
    for frame in ("one", "stop", "two"):
        here.write(frame)
    await until(lambda: got)
    await settled()
    assert got == ["one", "stop"]
    there.resume()
    assert got == ["one", "stop", "two"]


async def test_who_takes_a_frame_may_resume(pair: Pair) -> None:
    here, there = pair
    got: list[Frame] = []

    def take(frame: Frame) -> None:
        there.pause()
        there.resume()
        got.append(frame)

    there.begin(take, nothing)
    for number in range(5000):  # more than calls may be nested
        here.write(str(number))
    await until(lambda: len(got) == 5000)
    assert got == [str(number) for number in range(5000)]


async def test_a_writer_is_told_of_room(pair: Pair) -> None:
    here, there = pair
    room: list[bool] = []
    here.begin(lambda _: None, lambda: room.append(here.full))
    there.begin(lambda _: None, nothing)
    there.pause()
    while not here.full:
        here.write(bytes(1 << 16))
    await settled()
    assert not room
    there.resume()
    await until(lambda: room)
    assert room == [False]


@pytest.mark.parametrize("bad", [b"x\0\0\0\0", b"t" + (MAX_FRAME + 1).to_bytes(4, "big"), b"t\0\0\0\1\xff"])
async def test_what_is_no_frame_ends_the_connection(pair: Pair, bad: bytes) -> None:
    here, there = pair
    got: list[Frame] = []
    there.begin(got.append, nothing)
    here.write("good")
    here._transport.write(bad)
    await asyncio.wait_for(here.closed(), 20)
    await asyncio.wait_for(there.closed(), 20)
    assert got == ["good"]


async def test_the_first_frame_is_read_alone(pair: Pair) -> None:
    here, there = pair
    got: list[Frame] = []
    here.write("who")
    here.write("what")
    assert await asyncio.wait_for(there.first(), 20) == "who"
    there.begin(got.append, nothing)
    await until(lambda: got)
    assert got == ["what"]


async def test_what_is_lost_may_still_be_used(pair: Pair) -> None:
    here, there = pair
    there.begin(lambda _: None, nothing)
    there.pause()
    here.drop()
    there.drop()
    there.resume()
    there.pause()
    assert there.full  # what would go to it stays where it is
    there.write("nobody reads it")
    await there.end(1000, "")
    await asyncio.wait_for(there.closed(), 20)
    there.resume()


async def test_only_one_frame_is_the_first_also_of_a_connection_that_ends(pair: Pair) -> None:
    here, there = pair
    here.write("who")
    here.write("what")
    await here.end(1000, "")
    await until(lambda: there._data)
    there.drop()
    assert await asyncio.wait_for(there.first(), 20) == "who"


async def test_nobody_speaks_first(pair: Pair) -> None:
    here, there = pair
    here.drop()
    with pytest.raises(ConnectionError, match="before its first frame"):
        await asyncio.wait_for(there.first(), 20)


async def test_frames_pass_through_as_far_as_there_is_room(pair: Pair, tmp_path: Path) -> None:
    near, client = pair
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Stream] = loop.create_future()
    server = await loop.create_unix_server(lambda: Stream(made.set_result), str(tmp_path / "node"))
    remote = await RemoteDialogue.connect(tmp_path / "node", "ada", "ada", ["run"])
    node = await made
    assert '"owner":"ada"' in str(await node.first())
    talking = asyncio.ensure_future(remote.talk(near, "first"))

    got: list[Frame] = []
    node.begin(got.append, nothing)
    client.write("second")
    await until(lambda: len(got) == 2)
    assert got == ["first", "second"]

    # A client that reads nothing: what the node writes waits with the node.
    read: list[Frame] = []
    client.begin(read.append, nothing)
    client.pause()
    written = 0
    for _ in range(200):
        if not node.full:
            node.write(bytes(1 << 16))
            written += 1
        await asyncio.sleep(0.001)
    assert node.full and near.full and written < 200
    client.resume()
    await until(lambda: len(read) == written)

    node.drop()
    await asyncio.wait_for(talking, 20)
    await asyncio.wait_for(client.closed(), 20)
    server.close()
