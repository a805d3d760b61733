"""Both ends of a channel over a real socket, with a server that answers as it is told."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bakehouse.engine import wire
from bakehouse.engine.channel import Channel, Listener, Peer, Why, greet
from bakehouse.engine.errors import EngineLost, LimitExceeded, NotFound
from bakehouse.engine.link import HIGH_WATER, Link
from bakehouse.engine.wire import Frame


class Lost(Exception):
    """No connection."""


class Silent(Exception):
    """No answer."""


PEER = Peer("oven", 3, lost=Lost, silent=Silent, read_error=wire.read_error)


class Oven(Listener["Baker"]):
    """Sends, for each request, the items in it."""

    def new_client(self) -> Baker:
        return Baker(self)

    @property
    def clients(self) -> list[Baker]:
        return list(self._clients)


class Baker:
    def __init__(self, oven: Oven) -> None:
        self.oven = oven
        self.got: list[Any] = []
        self.reason: str | None = None
        self._greeted = False
        self.link = Link(self._on_frame, self._on_lost, farewell=lambda reason: wire.dump([["e", 0, "", reason, None]]))

    def _on_frame(self, link: Link, frame: Frame) -> None:
        if not self._greeted:
            greet(link, frame.body, PEER.version, PEER.name)
            self._greeted = True
            return
        self.got.append(frame.body["id"])
        items = frame.body["items"]
        if items:
            link.send(wire.dump(items))

    def _on_lost(self, link: Link, reason: str) -> None:
        self.reason = reason
        self.oven.forget(self)


class Asking:
    """A channel, what came over it beside answers, and how it ended."""

    def __init__(self, why: Why | None = None) -> None:
        self.items: list[tuple[str, Any, list[Any]]] = []
        self.over: list[str] = []
        self.channel = Channel(PEER, self._on_item, self.over.append, why)

    def _on_item(self, kind: str, which: Any, rest: list[Any], tail: memoryview) -> None:
        self.items.append((kind, which, rest))

    def ask(self, number: int, *items: list[Any], more: str = "") -> asyncio.Task[Any]:
        """Have *items* sent; the task ends with the answer to *number*."""
        return asyncio.create_task(self.channel.ask(number, {"id": number, "items": items, "more": more}))


@pytest_asyncio.fixture
async def oven(tmp_path: Path) -> AsyncIterator[Oven]:
    made = Oven(tmp_path / "oven.sock")
    await made.start()
    yield made
    made.stop_listening()
    for client in made.clients:
        client.link.close()


@pytest_asyncio.fixture
async def asking(oven: Oven) -> AsyncIterator[Asking]:
    made = Asking()
    await made.channel.connect(oven._path, 10)
    yield made
    made.channel.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


@asynccontextmanager
async def saying(path: Path, *frames: bytes) -> AsyncIterator[Path]:
    """A server that says *frames* and reads what comes, until its clients are gone."""
    ended: list[asyncio.Event] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        writer.writelines(frames)
        with suppress(ConnectionResetError):  # the other end has closed it unread
            await reader.read()
        writer.close()
        ended[-1].set()

    listener = await asyncio.start_unix_server(talk, path)
    yield path
    listener.close()
    for event in ended:
        await event.wait()


async def test_each_gets_its_own_answer(asking: Asking) -> None:
    first, second = asking.ask(1), asking.ask(2)
    third = asking.ask(3, ["r", 2, "two"], ["e", 3, "not_found", "no such cake", None], ["r", 1, {"of": b"one".hex()}])
    assert await second == "two"
    assert await first == {"of": b"one".hex()}
    with pytest.raises(NotFound, match="no such cake"):
        await third


async def test_what_nobody_waits_for_is_handed_on(asking: Asking) -> None:
    error = ["e", 77, "not_found", "burnt", None]
    assert await asking.ask(1, ["m", "tray", "warm"], ["r", 99, "given up"], error, ["r", 1, None]) is None
    assert asking.items == [("m", "tray", ["warm"]), ("e", 77, error[2:])]


async def test_a_request_that_is_too_large_is_refused_here(asking: Asking) -> None:
    with pytest.raises(LimitExceeded):
        await asking.ask(1, more="x" * wire.MAX_FRAME)
    assert await asking.ask(2, ["r", 2, "well"]) == "well"


async def test_a_cancelled_request_is_forgotten_also_while_the_other_end_is_behind(oven: Oven, asking: Asking) -> None:
    await until(lambda: oven.clients)
    transport = oven.clients[0].link._transport
    assert transport is not None
    transport.pause_reading()
    asked = [asking.ask(number, more="x" * HIGH_WATER) for number in range(1, 5)]
    await until(lambda: asking.channel.link.behind)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert not asking.channel._waiting
    transport.resume_reading()
    assert await asking.ask(9, ["r", 9, "well"]) == "well"


async def test_all_that_waits_ends_when_the_connection_does(oven: Oven, asking: Asking) -> None:
    asked = [asking.ask(1), asking.ask(2)]
    await until(lambda: oven.clients and len(oven.clients[0].got) == 2)
    oven.clients[0].link.close()
    for task in asked:
        with pytest.raises(Lost, match="the oven closed the connection"):
            await task
    await asking.channel.over()
    assert not asking.channel.open
    with pytest.raises(Lost, match="the oven closed the connection"):
        await asking.ask(3)
    asking.channel.close()
    assert asking.over == ["the oven closed the connection"]


async def test_what_is_known_of_the_end_is_told(oven: Oven) -> None:
    async def why(reason: str) -> EngineLost:
        return EngineLost("it burnt down")

    asking = Asking(why)
    await asking.channel.connect(oven._path, 10)
    asked = asking.ask(1)
    await until(lambda: oven.clients and oven.clients[0].got)
    oven.clients[0].link.close()
    with pytest.raises(Lost, match="it burnt down"):
        await asked


async def test_a_farewell_goes_before_that(oven: Oven, asking: Asking) -> None:
    asked = asking.ask(1)
    await until(lambda: oven.clients and oven.clients[0].got)
    oven.clients[0].link.close("the baker sleeps")
    with pytest.raises(Lost, match=r"^the baker sleeps$"):
        await asked


async def test_who_closes_it_leaves_nobody_waiting(oven: Oven, asking: Asking) -> None:
    asked = asking.ask(1)
    await until(lambda: oven.clients and oven.clients[0].got)
    asking.channel.close()
    asking.channel.close()
    for task in (asked, asking.ask(2)):
        with pytest.raises(Lost, match="closed by this program"):
            await task
    await until(lambda: not oven.clients)
    assert asking.over == ["the connection was closed by this program"]


@pytest.mark.parametrize("items", [[["r"]], [7], 7, [["e", 0]], [["e", 1, "code"]], [["r", 1, {"$": "cake"}]]])
async def test_what_cannot_be_read_ends_it(asking: Asking, items: Any) -> None:
    with pytest.raises(Lost, match="the oven closed the connection: "):
        await asking.channel.ask(1, {"id": 1, "items": items})
    assert len(asking.over) == 1


async def test_who_is_not_there_is_lost(tmp_path: Path) -> None:
    with pytest.raises(Lost, match=r"no oven listens at .*nobody\.sock"):
        await Asking().channel.connect(tmp_path / "nobody.sock", 10)


async def test_who_says_nothing_is_silent(tmp_path: Path) -> None:
    async with saying(tmp_path / "mute.sock") as path:
        asking = Asking()
        with pytest.raises(Silent, match=r"did not answer in 0\.05 s"):
            await asking.channel.connect(path, 0.05)
        assert not asking.channel.link.open


async def test_a_connection_that_is_given_up_is_closed(tmp_path: Path) -> None:
    async with saying(tmp_path / "mute.sock") as path:
        asking = Asking()
        connecting = asyncio.create_task(asking.channel.connect(path, 10))
        await until(lambda: asking.channel.link.open)
        connecting.cancel()
        await asyncio.wait([connecting])
        assert not asking.channel.link.open


@pytest.mark.parametrize("greeting", [{"t": "hello", "version": 4}, {"t": "cancel", "id": 1, "taken": 0}])
async def test_another_version_is_not_spoken_to(tmp_path: Path, greeting: Any) -> None:
    async with saying(tmp_path / "new.sock", wire.dump(greeting)) as path:
        asking = Asking()
        with pytest.raises(Lost, match="this program 3"):
            await asking.channel.connect(path, 10)
        assert not asking.channel.link.open


async def test_a_listener_is_this_users_only(oven: Oven) -> None:
    assert stat.S_IMODE(oven._path.stat().st_mode) == 0o600


async def test_a_listener_refuses_what_is_no_greeting_and_another_version(oven: Oven) -> None:
    for first in ({"t": "cancel", "id": 1, "taken": 0}, {"t": "hello", "version": 2}, ["hello"]):
        reader, writer = await asyncio.open_unix_connection(oven._path)
        writer.write(wire.dump(first))
        async with asyncio.timeout(10):
            told = await reader.read()
        assert b'["e",0,' in told
        assert (b"speaks version 2, the oven 3" in told) == (first == {"t": "hello", "version": 2})
        writer.close()
    await until(lambda: not oven.clients)


async def test_a_listener_that_stops_keeps_its_clients(oven: Oven, asking: Asking) -> None:
    oven.stop_listening()
    assert oven.stopping
    assert await asking.ask(1, ["r", 1, "still warm"]) == "still warm"
    with pytest.raises(Lost):
        await Asking().channel.connect(oven._path, 10)
