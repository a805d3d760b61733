"""A client's WebSocket as a dialogue has it: who reads nothing, or answers nothing, holds nobody up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bakehouse.api.inferlets import WIRE
from bakehouse.inferlets.talk import Frame, Wire
from bakehouse.wiring import sockets
from bakehouse.wiring.listener import Server, server_config, started
from bakehouse.wiring.sockets import MAX_HELLO, DirectProtocol, GreetingProtocol
from tests.support.waiting import wait_until

LARGE = bytes(1 << 20)


class Talk:
    """The server's end of one connection: what it got, and whether it is over."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.got: list[Frame] = []
        self.over = asyncio.Event()

    async def fill(self) -> None:
        """Write until the client takes no more."""
        while not self.wire.full:
            self.wire.write(LARGE)
            await asyncio.sleep(0.02 if self.wire.full else 0)


@asynccontextmanager
async def serving(protocol: type[DirectProtocol], **more: Any) -> AsyncIterator[tuple[str, asyncio.Queue[Talk]]]:
    """A server, and those who have connected to it."""
    talks: asyncio.Queue[Talk] = asyncio.Queue()

    async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        talk = Talk(scope["extensions"][WIRE])
        if scope["path"] == "/greeted":
            await receive()
            return
        talk.wire.begin(talk.got.append, lambda: None)
        talks.put_nowait(talk)
        await talk.wire.closed()
        talk.over.set()

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(server_config(cast(FastAPI, app), ws=protocol, **more))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await started(server, task)
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}", talks
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def talking(**more: Any) -> AsyncIterator[tuple[ClientConnection, Talk]]:
    async with serving(DirectProtocol, **more) as (url, talks):
        client = await connect(url, max_queue=1, max_size=None, close_timeout=0.1)
        try:
            yield client, await talks.get()
        finally:
            client.transport.abort()  # one that reads nothing would not see its end


async def test_messages_in_parts_are_put_together() -> None:
    async with talking() as (client, talk):
        await client.send(["", "ümlaut ", "in ", "parts"])
        await client.send([b"\xff", *([b"ab"] * 1000), b"\0"])
        await client.send("whole")
        await asyncio.to_thread(wait_until, lambda: len(talk.got) == 3, "the frames", 5)
        assert talk.got == ["ümlaut in parts", b"\xff" + b"ab" * 1000 + b"\0", "whole"]
        assert [type(frame) for frame in talk.got] == [str, bytes, str]


async def test_who_reads_nothing_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "END_SECONDS", 0.2)
    async with talking() as (client, talk):
        await talk.fill()
        ending = asyncio.create_task(talk.wire.end(4401, "unauthorized"))
        await asyncio.sleep(0.05)
        await client.send("one more order")
        await asyncio.wait_for(ending, 5)
        await asyncio.wait_for(talk.over.wait(), 5)
        assert talk.got == []


async def test_who_reads_is_told_why_it_ends() -> None:
    async with talking() as (client, talk):
        await talk.fill()
        reading = asyncio.create_task(read_all(client))
        await asyncio.gather(talk.wire.end(4401, "unauthorized"), talk.wire.end(1012, "stopping"))
        assert await asyncio.wait_for(reading, 5) == 4401


async def read_all(client: ClientConnection) -> int | None:
    """The code with which it ended."""
    try:
        while True:
            await client.recv()
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd is not None else None


async def test_who_answers_no_ping_is_given_up_though_it_has_not_read_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "END_SECONDS", 0.05)
    async with talking(ws_ping_interval=0.1, ws_ping_timeout=0.1) as (_, talk):
        await talk.fill()
        await asyncio.wait_for(talk.over.wait(), 5)


async def test_a_server_stops_though_one_that_has_left_has_not_read_all() -> None:
    async with serving(DirectProtocol) as (url, talks):
        client = await connect(url, max_queue=1, max_size=None)
        talk = await talks.get()
        await talk.fill()
        client.protocol.send_close(1000)
        client.send_data()
        await asyncio.wait_for(talk.over.wait(), 5)
    client.transport.abort()


async def test_nothing_is_for_a_connection_that_is_lost() -> None:
    async with talking() as (client, talk):
        before = talk.wire.full
        await client.close()
        await asyncio.wait_for(talk.over.wait(), 5)
        assert (before, talk.wire.full) == (False, True)
        talk.wire.write("nobody reads it")


@pytest.mark.parametrize("header", ["Basic bWU6bWU=", "Bearer ", "x"])
async def test_a_header_that_is_no_key_is_no_reason_to_trust(header: str) -> None:
    async with serving(GreetingProtocol) as (url, talks):
        async with connect(f"{url}/greeted", additional_headers={"Authorization": header}) as client:
            await client.send("x" * (MAX_HELLO + 1))
            assert await asyncio.wait_for(read_all(client), 5) == 1009
        async with connect(url, additional_headers={"Authorization": "Bearer key"}) as client:
            await client.send("x" * (MAX_HELLO + 1))
            talk = await talks.get()
            await asyncio.to_thread(wait_until, lambda: talk.got, "the frame", 5)
