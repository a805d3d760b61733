"""The contract of blob storage, on every variant."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bakehouse.blobs.base import Blobs
from bakehouse.blobs.disk import DiskBlobs
from bakehouse.core.errors import BakehouseError, Invalid, NotFound, TooLarge

KEY = "file_01j0000000000000000000abcd"
BIG = 10_000_000


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    store = DiskBlobs(tmp_path / "blobs")
    await store.open()
    yield store
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == [], "something half-written was left behind"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def content(blobs: Blobs, *span: int) -> bytes:
    return b"".join([part async for part in blobs.read(KEY, *span)])


async def test_put_read_delete(blobs: Blobs) -> None:
    parts = [os.urandom(700_000) for _ in range(4)]
    blob = await blobs.put(KEY, chunks(*parts), limit=BIG)
    whole = b"".join(parts)
    assert (blob.size, blob.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert await content(blobs) == whole
    assert await content(blobs, 5, 600_000) == whole[5:600_005]
    assert await content(blobs, len(whole) - 3) == whole[-3:]
    assert (await blobs.local(KEY)).read_bytes() == whole
    assert (await blobs.keys(), await blobs.usage()) == ([KEY], len(whole))
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    assert (await blobs.keys(), await blobs.usage()) == ([], 0)


async def test_an_empty_blob(blobs: Blobs) -> None:
    assert (await blobs.put(KEY, chunks(), limit=BIG)).size == 0
    assert await content(blobs) == b""


async def test_what_is_missing_is_not_found(blobs: Blobs) -> None:
    with pytest.raises(NotFound):
        await content(blobs)
    with pytest.raises(NotFound):
        await blobs.local(KEY)


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "a/b", "UPPER", "tmp/x"])
async def test_keys_are_no_paths(blobs: Blobs, key: str) -> None:
    with pytest.raises(NotFound):
        await blobs.put(key, chunks(b"x"), limit=BIG)


async def test_a_limit_stops_the_reading_and_keeps_what_was(blobs: Blobs) -> None:
    await blobs.put(KEY, chunks(b"before"), limit=BIG)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 500_000

    with pytest.raises(TooLarge):
        await blobs.put(KEY, endless(), limit=3_000_000)
    assert taken < 12
    assert await content(blobs) == b"before"


async def test_an_upload_that_breaks_leaves_nothing(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put(KEY, broken(), limit=BIG)
    assert await blobs.keys() == []


async def test_a_cancelled_upload_leaves_nothing(blobs: Blobs) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.put(KEY, stuck(), limit=BIG))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await blobs.keys() == []


async def test_readers_see_one_content_while_it_is_replaced(blobs: Blobs) -> None:
    await blobs.put(KEY, chunks(b"a" * 1_000_000), limit=BIG)
    reader = blobs.read(KEY)
    first = await anext(reader)
    await blobs.put(KEY, chunks(b"b" * 1_000_000), limit=BIG)
    rest = [part async for part in reader]
    assert set(b"".join([first, *rest])) == {ord("a")}
    assert set(await content(blobs)) == {ord("b")}


async def test_a_start_sweeps_what_a_crash_left(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path)
    await store.open()
    (tmp_path / "tmp" / "half").write_bytes(b"x")
    await store.open()
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_a_server_that_starts_leaves_the_uploads_of_another_alone(tmp_path: Path) -> None:
    first, second = DiskBlobs(tmp_path), DiskBlobs(tmp_path)
    await first.open()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        begun.set()
        await go_on.wait()

    upload = asyncio.create_task(first.put(KEY, slow(), limit=BIG))
    await begun.wait()
    await second.open()
    go_on.set()
    assert (await upload).size == 2_000_000


class TestUntrustedFiles:
    @pytest.fixture
    def outbox(self, tmp_path: Path) -> Path:
        path = tmp_path / "instances" / "inst_1" / "outbox"
        path.mkdir(parents=True)
        return path

    async def test_a_regular_file_is_copied(self, blobs: Blobs, outbox: Path) -> None:
        (outbox / "a").write_bytes(b"result")
        assert (await blobs.put_file(KEY, outbox / "a", limit=BIG)).size == 6
        (outbox / "a").write_bytes(b"changed")
        assert await content(blobs) == b"result"

    async def test_the_limit_holds(self, blobs: Blobs, outbox: Path) -> None:
        (outbox / "a").write_bytes(b"result")
        with pytest.raises(TooLarge):
            await blobs.put_file(KEY, outbox / "a", limit=5)

    @pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "missing", "moved directory"])
    async def test_anything_else_is_refused(self, blobs: Blobs, outbox: Path, tmp_path: Path, kind: str) -> None:
        secret = tmp_path / "elsewhere" / "secret"
        secret.parent.mkdir()
        secret.write_bytes(b"secret")
        path = outbox / "secret"
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "hard link":
            os.link(secret, path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "moved directory":
            outbox.rmdir()
            outbox.symlink_to(secret.parent)
        with pytest.raises(BakehouseError) as caught:
            await blobs.put_file(KEY, path, limit=BIG)
        assert isinstance(caught.value, Invalid)
        assert await blobs.keys() == []
