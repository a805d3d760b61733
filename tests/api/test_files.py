"""Files over HTTP, with a real server for the bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn

from bakehouse.api.common.download import disposition, parse_range
from bakehouse.api.common.problem import BadRange
from tests.support.platform import Platform

PNG = b"\x89PNG" + bytes(range(256)) * 16


@pytest.fixture
async def client(here: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with here.client((await here.key()).text) as client:
        yield client


@pytest.fixture
async def anyone(here: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with here.client() as client:
        yield client


async def announce(client: httpx.AsyncClient, **entry: object) -> dict[str, str]:
    answer = await client.post("/files", json={"files": [{"uri": "", **entry}]})
    assert answer.status_code == 200, answer.text
    (record,) = answer.json()["data"]
    return dict(record)


async def upload(client: httpx.AsyncClient, anyone: httpx.AsyncClient, content: bytes, **entry: object) -> str:
    record = await announce(client, **entry)
    answer = await anyone.put(record["upload_url"], content=content)
    assert answer.status_code == 200, answer.text
    return record["uri"]


async def test_the_way_of_a_published_client(client: httpx.AsyncClient, anyone: httpx.AsyncClient) -> None:
    # What the Python client sends: nulls included.
    entry = {"filename": "a.png", "content_type": "image/png", "path": None, "size": len(PNG), "public": None}
    record = await announce(client, **entry)
    assert record["upload_url"].startswith("http://bake.test/files/upload/")
    missing = await anyone.get(record["uri"])
    assert missing.status_code == 404
    put = await anyone.put(record["upload_url"], content=PNG, headers={"content-type": "image/png"})
    assert put.json()["data"]["stored"] is True
    got = await anyone.get(record["uri"])
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, PNG, "image/png")
    assert got.headers["content-length"] == str(len(PNG))
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-disposition"].startswith('inline; filename="a.png"')
    assert got.headers["cache-control"].startswith("private")
    head = await anyone.head(record["uri"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PNG)))


@pytest.mark.parametrize(
    ("wanted", "span"),
    [("bytes=0-0", (0, 1)), ("bytes=10-19", (10, 10)), ("bytes=-5", (len(PNG) - 5, 5)), ("bytes=4000-", (4000, 100)),
     ("bytes=4000-999999", (4000, 100))],
)  # fmt: skip
async def test_ranges(client: httpx.AsyncClient, anyone: httpx.AsyncClient, wanted: str, span: tuple[int, int]) -> None:
    uri = await upload(client, anyone, PNG)
    got = await anyone.get(uri, headers={"range": wanted})
    start, count = span
    assert (got.status_code, got.content) == (206, PNG[start : start + count])
    assert got.headers["content-range"] == f"bytes {start}-{start + count - 1}/{len(PNG)}"


async def test_conditions(client: httpx.AsyncClient, anyone: httpx.AsyncClient) -> None:
    uri = await upload(client, anyone, PNG)
    etag = (await anyone.get(uri)).headers["etag"]
    assert (await anyone.get(uri, headers={"if-none-match": f'"x", {etag}'})).status_code == 304
    assert (await anyone.get(uri, headers={"range": "bytes=0-1", "if-range": etag})).status_code == 206
    assert (await anyone.get(uri, headers={"range": "bytes=0-1", "if-range": '"old"'})).status_code == 200
    outside = await anyone.get(uri, headers={"range": "bytes=9999-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{len(PNG)}")
    assert outside.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "text", [None, "", "bytes=", "bytes=-", "items=0-1", "bytes=0-1,4-5", "bytes=5-2", "bytes=a-b"]
)
def test_ranges_that_mean_the_whole(text: str | None) -> None:
    assert parse_range(text, 100) is None


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=-0", "bytes=99999999999999999999999-"])
def test_ranges_outside(text: str) -> None:
    with pytest.raises(BadRange):
        parse_range(text, 100)


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/pdf", "application/xml", "text/html;a=b"])
def test_what_could_run_is_saved_not_shown(kind: str) -> None:
    assert disposition("x", kind).startswith("attachment")


def test_names_in_headers_are_escaped() -> None:
    text = disposition('a"b\r\nc: d é.png', "image/png")
    assert text.isascii()
    assert text.isprintable()
    assert 'filename="a_b__c: d _.png"' in text
    assert text.endswith("filename*=UTF-8''a%22b%0D%0Ac%3A%20d%20%C3%A9.png")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/files"), ({"files": []}, "/files"), ({"files": {}}, "/files"), ({"files": ["x"]}, "/files/0"),
        ({"files": [{"size": -1}]}, "/files/0/size"), ({"files": [{"size": "1"}]}, "/files/0/size"),
        ({"files": [{"filename": 1}]}, "/files/0/filename"), ({"files": [{"content_type": "x"}]}, "/content_type"),
    ],
)  # fmt: skip
async def test_bad_announcements(client: httpx.AsyncClient, body: object, path: str) -> None:
    answer = await client.post("/files", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path)


async def test_list_get_delete(client: httpx.AsyncClient, anyone: httpx.AsyncClient, here: Platform) -> None:
    uri = await upload(client, anyone, PNG, filename="a.png")
    (item,) = (await client.post("/files/list")).json()["data"]["items"]
    assert (item["uri"], "upload_url" in item) == (uri, False)
    assert (await client.get(f"/files/{item['id']}")).json()["data"] == item
    async with here.client((await here.key("other")).text) as other:
        assert (await other.get(f"/files/{item['id']}")).status_code == 404
        assert (await other.delete(f"/files/{item['id']}")).status_code == 404
        assert (await other.post("/files/list")).json()["data"]["items"] == []
    assert (await anyone.get(f"/files/{item['id']}")).status_code == 401
    assert (await client.delete(f"/files/{item['id']}")).json()["data"]["deleted"] is True
    assert (await anyone.get(uri)).status_code == 404
    assert (await client.delete(f"/files/{item['id']}")).status_code == 404


async def test_upload_urls_cannot_be_guessed(client: httpx.AsyncClient, anyone: httpx.AsyncClient) -> None:
    record = await announce(client)
    url = httpx.URL(record["upload_url"])
    for query in ("", "expires=1", "expires=x&signature=y", f"expires={url.params['expires']}&signature=0"):
        answer = await anyone.put(url.copy_with(query=query.encode()), content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


class TestOverASocket:
    """Bodies as they really arrive: in pieces, too long, cut off."""

    @pytest.fixture
    async def served(self, here: Platform) -> AsyncIterator[httpx.AsyncClient]:
        app = here.client()._transport.app  # type: ignore[attr-defined]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        listener = socket.create_server(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        key = (await here.key()).text
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}
        ) as client:
            yield client
        server.should_exit = True
        await running

    async def path(self, client: httpx.AsyncClient) -> str:
        return (await announce(client))["upload_url"].removeprefix("http://bake.test")

    async def test_a_large_upload_and_download(self, served: httpx.AsyncClient, here: Platform) -> None:
        record = await announce(served)
        content = bytes(range(250)) * 3600
        put = await served.put(record["upload_url"].removeprefix("http://bake.test"), content=content)
        assert put.status_code == 200
        assert (await served.get(record["uri"].removeprefix("http://bake.test"))).content == content

    async def test_too_large(self, served: httpx.AsyncClient, here: Platform) -> None:
        async def long() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100_000

        answer = await served.put(await self.path(served), content=long())
        assert answer.status_code == 413
        assert await here.blobs.keys() == []

    @pytest.mark.parametrize("framing", ["content-length: 1073741824", "transfer-encoding: chunked"])
    async def test_a_gigabyte_of_json_is_refused_while_it_comes(self, served: httpx.AsyncClient, framing: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.base_url.port)
        key = served.headers["authorization"]
        writer.write(f"POST /files HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n{framing}\r\n\r\n".encode())
        chunk = b" " * (1 << 20)
        for _ in range(17):
            writer.write(b"100000\r\n" + chunk + b"\r\n" if "chunked" in framing else chunk)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert b" 413 " in head
        writer.close()
        await writer.wait_closed()

    async def test_a_client_that_sends_all_before_it_reads_sees_the_answer(self, served: httpx.AsyncClient) -> None:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b" " * (1 << 20)

        for headers in ({"content-length": str(64 << 20)}, {}):
            assert (await served.post("/files", content=body(), headers=headers)).status_code == 413

    async def test_a_connection_that_breaks(self, served: httpx.AsyncClient, here: Platform) -> None:
        path = await self.path(served)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.base_url.port)
        writer.write(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n".encode() + b"x" * 500_000)
        await writer.drain()
        writer.transport.abort()
        del reader, writer
        # The same URL still works, and nothing of the broken upload is kept.
        assert (await served.put(path, content=b"whole")).status_code == 200
        assert [key for key in await here.blobs.keys() if (await here.blobs.local(key)).read_bytes() != b"whole"] == []
