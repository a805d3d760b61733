"""The protocol as bytes on a socket: what a client of somebody else's may get wrong, and what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from inferlet.client._connection import address_of
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tests.inferlets.client.support import PieServer, frame


class Raw:
    """A socket, and the frames that it gets, as objects."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, *frames: str | bytes) -> dict[str, Any]:
        """Send *frames*; the next frame that comes."""
        for each in frames:
            await self.socket.send(each)
        return await self.next()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return dict(json.loads(await self.socket.recv()))


@pytest.fixture
async def raw(pie: PieServer) -> AsyncIterator[Raw]:
    async with connect(address_of(pie.address), additional_headers=bearer(pie.key)) as socket:
        yield Raw(socket)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("sent", "number", "code", "text"),
    [
        ("nonsense", None, "bad_frame", "not JSON"),
        ("[]", None, "bad_frame", "JSON object"),
        ("{}", None, "bad_frame", "id: "),
        ('{"id":"1","op":"ping"}', None, "bad_frame", "id: "),
        ('{"id":true,"op":"ping"}', None, "bad_frame", "id: "),
        ('{"id":-1,"op":"ping"}', None, "bad_frame", "id: "),
        ('{"id":1}', 1, "bad_request", "op: must be one of hello, ping"),
        ('{"id":1,"op":"fly"}', 1, "bad_request", "not 'fly'"),
        ('{"id":1,"op":["ping"]}', 1, "bad_request", "op: "),
        ('{"id":1,"op":"ping","now":1}', 1, "bad_request", "now: ping knows no such field"),
        ('{"id":1,"op":"launch"}', 1, "bad_request", "program: is missing"),
        ('{"id":1,"op":"launch","program":1}', 1, "bad_request", "program: must be a text, not 1"),
        ('{"id":1,"op":"launch","program":"a b"}', 1, "bad_program", "names no program"),
        ('{"id":1,"op":"launch","program":"x","arguments":"y"}', 1, "bad_request", "a list of texts"),
        ('{"id":1,"op":"launch","program":"tool","limits":{"cpu":"1"}}', 1, "bad_request", "an object of numbers"),
        ('{"id":1,"op":"launch","program":"tool","attach":1}', 1, "bad_request", "true or false"),
        ('{"id":1,"op":"attach","process":"x","after":-1}', 1, "bad_request", "a number from 0 on"),
        ('{"id":1,"op":"ping","size":3}', 1, "too_large", "at most 0 bytes"),
        ('{"id":1,"op":"take","wait":1}', 1, "bad_request", "ask for open first"),
        ('{"id":1,"op":"signal","process":"x","text":"y"}', 1, "not_found", "not attached"),
    ],
)
async def test_what_is_wrong_with_a_frame_is_its_answer(
    raw: Raw, sent: str, number: int | None, code: str, text: str
) -> None:
    found = await raw.ask(sent)
    assert found["id"] == number
    assert found["error"]["code"] == code
    assert text in found["error"]["message"]
    assert await raw.ask('{"id":2,"op":"ping"}') == {"id": 2, "result": {}}


async def test_bytes_that_nobody_announced_are_refused(raw: Raw) -> None:
    assert (await raw.ask(b"lost"))["error"]["code"] == "bad_frame"
    found = await raw.ask(frame(id=5, op="file", process="x", size=4), frame(id=6, op="ping"))
    # No process x is asked for here: the bytes were not all there.
    assert (found["id"], found["error"]["code"]) == (5, "bad_frame")
    assert await raw.next() == {"id": 6, "result": {}}


async def test_bytes_after_a_refusal_are_passed_over(raw: Raw) -> None:
    found = await raw.ask(frame(id=1, op="file", process="x", size=1 << 40), b"x" * 1000, b"y" * 1000)
    assert (found["id"], found["error"]["code"]) == (1, "too_large")
    assert (await raw.ask(frame(id=2, op="ping")))["id"] == 2


async def test_each_request_has_one_answer(raw: Raw) -> None:
    for number in range(300):
        await raw.socket.send(frame(id=number, op="ping"))
    assert [(await raw.next())["id"] for _ in range(300)] == list(range(300))


async def test_a_frame_of_more_than_16_mib_ends_the_connection(raw: Raw) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await raw.ask("x" * ((16 << 20) + 1))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_the_key_may_come_with_the_first_frame(pie: PieServer) -> None:
    async with connect(address_of(pie.address)) as socket:
        raw = Raw(socket)
        assert (await raw.ask(frame(id=9, op="hello", token=pie.key)))["result"]["username"] == "local"
        assert (await raw.ask(frame(id=10, op="hello", token=pie.key)))["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    "first",
    [
        '{"id":1,"op":"hello","token":"wrong"}',
        '{"id":1,"op":"hello"}',
        '{"id":1,"op":"ping"}',
        "nonsense",
        b"nonsense",
        "[]",
    ],
)
async def test_without_a_key_the_first_frame_is_the_last(pie: PieServer, first: str | bytes) -> None:
    async with connect(address_of(pie.address)) as socket:
        raw = Raw(socket)
        assert (await raw.ask(first))["error"]["code"] == "unauthorized"
        with pytest.raises(ConnectionClosed) as closed:
            await raw.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_who_has_no_key_yet_sends_little(pie: PieServer) -> None:
    async with connect(address_of(pie.address)) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await Raw(socket).ask(frame(id=1, op="hello", token="x" * (64 << 10)))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    async with connect(address_of(pie.address)) as socket:
        raw = Raw(socket)
        assert "result" in await raw.ask(frame(id=1, op="hello", token=pie.key))
        assert "no such field" in (await raw.ask(frame(id=2, op="ping", now="x" * (8 << 20))))["error"]["message"]


async def test_64_clients_may_be_about_to_say_who_they_are(pie: PieServer) -> None:
    silent = [await connect(address_of(pie.address)) for _ in range(64)]
    try:
        async with connect(address_of(pie.address)) as socket:
            assert (await Raw(socket).next())["error"]["code"] == "rate_limited"
        async with connect(address_of(pie.address), additional_headers=bearer(pie.key)) as socket:
            assert (await Raw(socket).ask(frame(id=1, op="ping")))["id"] == 1
        assert "result" in await Raw(silent[0]).ask(frame(id=1, op="hello", token=pie.key))
        async with connect(address_of(pie.address)) as socket:
            assert "result" in await Raw(socket).ask(frame(id=1, op="hello", token=pie.key))
    finally:
        await asyncio.gather(*(each.close() for each in silent))


async def test_a_wrong_key_in_the_header_is_401(pie: PieServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(address_of(pie.address), additional_headers=bearer("inf_wrong"))
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["code"] == "unauthorized"


async def test_a_server_that_asks_for_no_key_is_not_for_pages_of_others(tmp_path: Path) -> None:
    server = PieServer(tmp_path / "home", arguments=["--no-auth"]).start()
    try:
        for origin in ("https://evil.example", "http://localhost.evil.example:8787", "null"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address_of(server.address), origin=Origin(origin))
            assert refused.value.response.status_code == 403
        for own in ("http://localhost:3000", "http://127.0.0.1:8787", "http://[::1]"):
            async with connect(address_of(server.address), origin=Origin(own)) as socket:
                assert (await Raw(socket).ask(frame(id=1, op="hello")))["result"]["username"] == "local"
    finally:
        server.kill()


async def test_an_owner_has_64_connections(pie: PieServer) -> None:
    key = pie.new_owner("crowd")
    open_ones = [await connect(address_of(pie.address), additional_headers=bearer(key)) for _ in range(64)]
    try:
        async with connect(address_of(pie.address), additional_headers=bearer(key)) as socket:
            assert (await Raw(socket).next())["error"]["code"] == "rate_limited"
    finally:
        for each in open_ones:
            await each.close()


async def test_an_event_has_its_process_and_number(raw: Raw) -> None:
    launched = await raw.ask(frame(id=1, op="launch", program="tool", arguments=["talk", "2"]))
    process = launched["result"]["process"]
    seen = [await raw.next() for _ in range(3)]
    assert seen == [
        {"event": "message", "process": process, "seq": 1, "text": "0"},
        {"event": "message", "process": process, "seq": 2, "text": "1"},
        {"event": "ended", "process": process, "seq": 3, "result": ""},
    ]


async def test_replies_that_nobody_waits_for_are_dropped(raw: Raw) -> None:
    for reply in (1, "x", None, [1]):
        await raw.socket.send(json.dumps({"reply": reply, "result": 1}))
    assert (await raw.ask(frame(id=1, op="ping")))["id"] == 1


async def test_a_client_that_asks_and_never_reads_is_not_read_any_more(pie: PieServer, raw: Raw) -> None:
    """What it asked waits in its socket, not in the server; the answers come when it reads."""
    async with connect(
        address_of(pie.address), additional_headers=bearer(pie.key), max_queue=1, close_timeout=0.1
    ) as deaf:
        long = "x" * 20_000
        sent = 0
        with suppress(TimeoutError):
            while sent < 20_000:
                async with asyncio.timeout(1):
                    await deaf.send(frame(id=sent, op=long))
                sent += 1
        assert sent < 20_000
        assert (await raw.ask(frame(id=1, op="ping")))["id"] == 1
        other = Raw(deaf)
        assert [(await other.next())["id"] for _ in range(100)] == list(range(100))
