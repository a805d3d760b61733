"""The generators count right: against small servers that speak real sockets and a known profile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.load import drive, percentile
from benchmarks.measure_ours import hottest
from benchmarks.readers import read
from benchmarks.report import sections

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listening(answer: Answer) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


async def test_load_counts_answers_and_errors() -> None:
    answered = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                assert json.loads(await reader.readexactly(length)) == {"n": 1}
                answered += 1
                body = b'{"status":10}' if answered % 5 else b'{"status":11}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
        except asyncio.IncompleteReadError:
            writer.close()

    server, port = await listening(answer)
    async with server:
        url = f"http://127.0.0.1:{port}/apps/run"
        found = await drive({"url": url, "body": '{"n": 1}', "callers": 3, "seconds": 0.3, "expect": '"status":10'})
    assert found["count"] + found["errors"] == answered
    assert found["errors"] == answered // 5
    assert found["p50_ms"] <= found["p99_ms"]
    assert '"status":11' in found["first_error"]


async def test_readers_count_lines_and_terminal_ones() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        last = b"7" if b"/tasks/task_b/" in head else b"10"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in [b'{"id":1,"status":7,"x":0}\n'] * 4 + [b'{"id":1,"status":%s,"x":0}\n' % last]:
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server, port = await listening(answer)
    async with server:
        tasks = ["task_a", "task_b", "task_a"]
        found = await read({"host": "127.0.0.1", "port": port, "key": "k", "tasks": tasks, "timeout": 10, "mark": "x"})
    assert (found["streams"], found["terminal"], found["least_lines"]) == (3, 2, 5)
    assert found["refused"] == 0
    assert not found["timed_out"]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_percentile(share: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value
    assert percentile([], share) == 0.0


def test_a_profile_is_told_by_package_and_by_function() -> None:
    stacks = (
        "run (asyncio/runners.py:5);app (fastapi/routing.py:9);write (bakehouse/store/writer.py:3) 6\n"
        "run (asyncio/runners.py:5);app (fastapi/routing.py:9);dumps (json/encoder.py:1) 3\n"
        "run (asyncio/runners.py:5) 1\n"
    )
    assert hottest(stacks) == [
        ("room", 0.6, "bakehouse.store"),
        ("room", 0.3, "fastapi"),
        ("room", 0.1, "standard library"),
        ("function", 0.6, "write (bakehouse/store/writer.py:3)"),
        ("function", 0.3, "dumps (json/encoder.py:1)"),
        ("function", 0.1, "run (asyncio/runners.py:5)"),
    ]


def test_a_missed_aim_says_by_how_much() -> None:
    ours = {"rate": 900.0, "p50_ms": 2.0, "p99_ms": 4.0, "errors": 0, "server_cpu_ms": 1.0, "instance_cpu_ms": 0.5}
    run = {
        "systems": {"LitServe": {"missing": "not here\nlong story"}, "Bakehouse": {"64": ours}},
        "streams": {},
        "busy": {},
    }
    told = {title: rows for title, _, rows in sections(run)}
    assert told["Aims"] == [["no-op tasks/s at 64 callers", "at least 1,800", "900.00", "missed (0.50x)"]]
    assert told["One no-op call per request"][0][-2] == "not here"
