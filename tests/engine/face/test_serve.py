"""Clients that misbehave, vanish or do not read; none of them harms the others or leaves anything behind."""

from __future__ import annotations

import asyncio
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from bakehouse.engine import serve as serving
from bakehouse.engine import wire
from bakehouse.engine.errors import EngineLost, LimitExceeded, NotFound
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, Embedding, GenerateRequest
from bakehouse.engine.remote import RemoteEngine
from bakehouse.engine.serve import Server
from tests.engine.face.programs import NO_STOP, chunks, prompt

LONG = 20_000


def path_of(server: Server) -> Path:
    return server._path


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


class Raw:
    """A client that says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, server: Server, *, greet: bool = True) -> Raw:
        raw = cls(*await asyncio.open_unix_connection(path_of(server)))
        if greet:
            raw.send({"t": "hello", "version": wire.VERSION})
            assert await raw.next() == {"t": "hello", "version": wire.VERSION}
        return raw

    def send(self, body: Any) -> None:
        self.write(wire.dump(body))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> Any:
        text, tail = struct.unpack(">II", await self.reader.readexactly(8))
        return orjson.loads((await self.reader.readexactly(text + tail))[:text])

    async def ended(self) -> bool:
        """Whether the server closes the connection, whatever it says before."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
        self.writer.close()
        return True

    def start(self, max_tokens: int = LONG) -> None:
        """A session, a context with one token, a generation on it."""
        self.send({"t": "open", "id": 1, "session": 1, "model": "dummy", "owner": "ada", "program": ""})
        self.send({"t": "call", "id": 2, "session": 1, "method": "create_context", "args": {}, "taken": []})

    def generate(self, context: int, number: int = 4) -> None:
        append = {"context": context, "tokens": [65]}
        request = {"context": context, "stop": {"tokens": []}, "max_tokens": LONG, "sampler": {"temperature": 0}}
        self.send({"t": "call", "id": 3, "session": 1, "method": "append_tokens", "args": append, "taken": []})
        call = {"t": "call", "id": number, "session": 1, "method": "generate", "taken": []}
        self.send({**call, "args": {"request": request}})

    async def result(self, number: int) -> Any:
        while True:
            for item in await self.next():
                if item[:2] == ["r", number]:
                    return item[2]


async def test_the_socket_is_the_owners(server: Server) -> None:
    assert stat.S_IMODE(path_of(server).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">II", 0, 0),
        struct.pack(">II", wire.MAX_FRAME, wire.MAX_FRAME),
        struct.pack(">II", 4, 0) + b"nope",
        wire.dump({"t": "open", "id": 1, "session": 1, "model": "dummy", "owner": "a", "program": ""}),
        wire.dump({"t": "hello"}),
        wire.dump([1, 2, 3]),
    ],
)
async def test_what_is_no_greeting_ends_the_connection_only(server: Server, data: bytes) -> None:
    raw = await Raw.connect(server, greet=False)
    raw.write(data)
    assert await raw.ended()
    await _works(server)


@pytest.mark.parametrize(
    "body",
    [
        {"t": "hello", "version": 1},
        {"t": "call", "id": 0, "session": 1, "method": "flush", "args": {}, "taken": []},
        {"t": "call", "id": 1, "session": 1},
        {"t": "dance"},
        "text",
        None,
    ],
)
async def test_wrong_messages_end_the_connection_and_free_its_sessions(server: Server, body: Any) -> None:
    raw = await Raw.connect(server)
    raw.start()
    raw.generate(await raw.result(2))
    await raw.result(4)
    raw.send(body)
    assert await raw.ended()
    await _works(server)


async def _works(server: Server) -> None:
    engine = await RemoteEngine.connect(path_of(server))
    async with await engine.open("dummy", "ada") as session:
        assert len(await chunks(session, await prompt(session), sampler=GREEDY, max_tokens=4, stop=NO_STOP)) >= 1
    await engine.close()


async def test_another_version_is_refused_by_both_sides(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = await Raw.connect(server, greet=False)
    raw.send({"t": "hello", "version": 99})
    assert (await raw.next())["version"] == wire.VERSION
    assert await raw.ended()

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.dump({"t": "hello", "version": 99}))
        await reader.read()
        writer.close()

    path = path_of(server).with_name("old.sock")
    listener = await asyncio.start_unix_server(old, path)
    with pytest.raises(EngineLost, match="version 99"):
        await RemoteEngine.connect(path)
    listener.close()


async def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(EngineLost, match=r"nobody\.sock"):
        await RemoteEngine.connect(tmp_path / "nobody.sock")


async def test_a_client_that_vanishes_leaves_nothing(server: Server, served: ServedModel) -> None:
    engine = await RemoteEngine.connect(path_of(server))
    session = await engine.open("dummy", "ada")
    for _ in range(5):
        stream = await session.generate(
            GenerateRequest(context=await prompt(session), sampler=GREEDY, max_tokens=LONG, stop=NO_STOP)
        )
        await anext(stream)
    assert served.planner.pages.held > 0
    assert engine.channel.link._transport is not None
    engine.channel.link._transport.abort()
    await until(lambda: served.planner.pages.held == 0 and not server._clients)
    with pytest.raises(EngineLost):
        await session.encode("x")
    with pytest.raises(EngineLost):
        async for _ in stream:
            pass


async def test_two_clients_do_not_meet(server: Server) -> None:
    first, second = [await RemoteEngine.connect(path_of(server)) for _ in range(2)]
    async with await first.open("dummy", "ada") as ada, await second.open("dummy", "ada") as eve:
        context = await prompt(ada)
        with pytest.raises(NotFound):
            await eve.context_state(context)
        stream = await ada.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=50, stop=NO_STOP))
        await second.close()
        assert len([chunk async for chunk in stream]) > 10
    await first.close()


async def test_a_reader_that_reads_nothing_is_cut_off_and_the_others_go_on(server: Server, served: ServedModel) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(str(path_of(server)))
    raw = Raw(*await asyncio.open_unix_connection(sock=sock, limit=1024))
    raw.send({"t": "hello", "version": wire.VERSION})
    raw.start()
    for number in range(10, 60):  # each answer is a dozen kilobytes, and nobody takes them
        args = {"tokens": list(range(256)) * 16}
        call = {"t": "call", "id": number, "session": 1, "method": "decode", "args": args, "taken": []}
        raw.send(call)
    for number in range(100, 1500):
        raw.send({"t": "call", "id": number, "session": 1, "method": "vocabulary", "args": {}, "taken": []})
    await until(lambda: any(client.link.behind for client in server._clients))
    await asyncio.gather(*(_works(server) for _ in range(4)))
    await until(lambda: not server._clients)
    raw.writer.close()


async def test_answers_that_are_too_large_become_errors(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await RemoteEngine.connect(path_of(server))
    async with await engine.open("dummy", "ada") as session:

        async def huge(handle: object, text: str) -> Embedding | list[int]:
            return Embedding(bytes(wire.MAX_FRAME)) if text == "huge" else [1]

        monkeypatch.setattr(serving.Handle, "encode", huge)
        found = await asyncio.gather(*(session.encode(text) for text in ("a", "huge", "b")), return_exceptions=True)
        assert (found[0], found[2]) == ([1], [1])
        assert isinstance(found[1], LimitExceeded)
    await engine.close()


async def test_too_many_calls_at_once_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_CALLS", 3)
    engine = await RemoteEngine.connect(path_of(server))
    async with await engine.open("dummy", "ada") as session:
        contexts = [await prompt(session) for _ in range(4)]
        streams = await asyncio.gather(
            *(
                session.generate(GenerateRequest(context=at, sampler=GREEDY, max_tokens=LONG, stop=NO_STOP))
                for at in contexts
            ),
            return_exceptions=True,
        )
        assert [type(stream).__name__ for stream in streams] == ["RemoteStream"] * 3 + ["LimitExceeded"]
        for stream in streams[:3]:
            stream.cancel()  # type: ignore[union-attr]
    await engine.close()


async def test_a_step_of_many_streams_is_one_frame(server: Server) -> None:
    engine = await RemoteEngine.connect(path_of(server))
    frames = 0
    take = engine.channel.link._on_frame

    def counted(link: Any, frame: Any) -> None:
        nonlocal frames
        frames += 1
        take(link, frame)

    async with await engine.open("dummy", "ada") as session:
        contexts = [await prompt(session) for _ in range(16)]
        streams = [
            await session.generate(GenerateRequest(context=at, sampler=GREEDY, max_tokens=100, stop=NO_STOP))
            for at in contexts
        ]
        engine.channel.link._on_frame = counted

        async def read(stream: Any) -> int:
            return len([chunk async for chunk in stream])

        found = sum(await asyncio.gather(*map(read, streams)))
        assert frames < found / 4
    await engine.close()


async def test_closing_drains_what_runs_and_refuses_what_is_new(server: Server) -> None:
    engine = await RemoteEngine.connect(path_of(server))
    session = await engine.open("dummy", "ada")
    stream = await session.generate(
        GenerateRequest(context=await prompt(session), sampler=GREEDY, max_tokens=300, stop=NO_STOP)
    )
    other = await prompt(session)
    await anext(stream)
    closing = asyncio.create_task(server.close(drain=20))
    await asyncio.sleep(0)
    with pytest.raises(EngineLost, match="stopping"):
        await session.generate(GenerateRequest(context=other, sampler=GREEDY, max_tokens=3, stop=NO_STOP))
    told = [chunk async for chunk in stream]
    assert told[-1].finish is not None
    await closing
    with pytest.raises(EngineLost, match="stopping"):
        await session.encode("x")
    assert not path_of(server).exists()
    await engine.close()
