"""Files: signed uploads, permanent URIs, what tasks leave behind, upkeep."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from bakehouse.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from bakehouse.core.executor import OutputFile
from bakehouse.service.files import FileSpec, clean_name
from bakehouse.service.lists import ListQuery
from tests.support.platform import Platform, chunks


async def read(here: Platform, uri: str) -> bytes:
    record = await here.files.by_uri(uri)
    assert record is not None
    return b"".join([part async for part in here.files.content(record)])


async def link(here: Platform, **spec: Any) -> tuple[str, int, str]:
    record = await here.files.create(await here.caller(), FileSpec(**spec))
    query = httpx.URL(here.files.upload_url(record)).params
    return record.id, int(query["expires"]), query["signature"]


async def test_upload_and_read(here: Platform) -> None:
    who = await here.caller()
    uri = await here.upload(who, b"content", filename="../a b.txt", size=7)
    assert uri.endswith("/a%20b.txt")
    assert await read(here, uri) == b"content"
    record = await here.files.by_uri(uri)
    assert record is not None
    assert (record.filename, record.content_type, record.size) == ("a b.txt", "text/plain", 7)
    assert await here.files.file_of(uri) == record.id
    assert await here.files.file_of("http://elsewhere.test" + uri.removeprefix("http://bake.test")) is None


async def test_only_the_signed_url_uploads(here: Platform) -> None:
    file_id, expires, signature = await link(here)
    for wrong in [(file_id, expires, "0" * 64), (file_id, expires + 1, signature), ("file_x", expires, signature)]:
        with pytest.raises(Forbidden):
            await here.files.receive(*wrong, chunks(b"x"))
    with pytest.raises(Forbidden):
        await here.files.receive(file_id, expires, "\u00e9", chunks(b"x"))
    here.clock.moved = 61
    with pytest.raises(Forbidden, match="expired"):
        await here.files.receive(file_id, expires, signature, chunks(b"x"))
    assert await here.blobs.keys() == []


async def test_a_file_never_changes(here: Platform) -> None:
    where = await link(here)
    first = await here.files.receive(*where, chunks(b"one"))
    # The client that did not see the answer sends the same again.
    assert (await here.files.receive(*where, chunks(b"o", b"ne"))).sha256 == first.sha256
    with pytest.raises(Conflict):
        await here.files.receive(*where, chunks(b"two"))
    assert await read(here, here.files.url(first)) == b"one"
    assert len(await here.blobs.keys()) == 1


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_two_uploads_at_once_do_not_mix(here: Platform) -> None:
    where = await link(here)
    contents = (b"a" * 300_000, b"b" * 300_000)
    results = await asyncio.gather(
        *(here.files.receive(*where, chunks(content)) for content in contents), return_exceptions=True
    )
    stored = [result for result in results if not isinstance(result, BaseException)]
    assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict]
    assert await read(here, here.files.url(stored[0])) in contents
    assert len(await here.blobs.keys()) == 1


async def test_sizes_hold(here: Platform) -> None:
    with pytest.raises(Invalid) as caught:
        await here.files.receive(*await link(here, size=4), chunks(b"five!"))
    assert caught.value.fields[0]["path"] == "/size"
    with pytest.raises(TooLarge):
        await here.files.receive(*await link(here), chunks(b"x" * 1_000_001))
    with pytest.raises(TooLarge):
        await link(here, size=1_000_001)
    assert await here.blobs.keys() == []


async def test_files_belong_to_their_owner(here: Platform) -> None:
    mine, other = await here.caller(), await here.caller("other")
    uri = await here.upload(mine, b"x")
    record = await here.files.by_uri(uri)
    assert record is not None
    for forbidden in (here.files.get, here.files.delete):
        with pytest.raises(NotFound):
            await forbidden(other, record.id)
    assert (await here.files.list_files(other, ListQuery())).items == []
    assert [r.id for r in (await here.files.list_files(mine, ListQuery())).items] == [record.id]


async def test_a_deleted_file_is_gone_at_once(here: Platform) -> None:
    who = await here.caller()
    uri = await here.upload(who, b"x")
    record = await here.files.by_uri(uri)
    assert record is not None
    await here.files.delete(who, record.id)
    assert await here.files.by_uri(uri) is None
    with pytest.raises(NotFound):
        await here.files.by_capability(record.capability)
    assert await here.blobs.keys() == []


async def test_outputs_of_tasks(here: Platform, tmp_path: Path) -> None:
    who = await here.caller()
    await here.deploy(who, "name: echo")
    task_id = here.builds[0].id
    outbox = tmp_path / "inst" / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "r4nd0m").write_bytes(b"png")
    output = OutputFile("/image", outbox / "r4nd0m", "result.png", "not a type", 3)
    record = await here.files.store_output(who.owner_id, task_id, output)
    assert (record.content_type, record.size, record.category) == ("image/png", 3, "output")
    assert await read(here, here.files.url(record)) == b"png"
    assert [(link.role, found.id) for link, found in await here.files.of_task(task_id)] == [("output", record.id)]
    (outbox / "link").symlink_to(tmp_path / "bakehouse.db")
    with pytest.raises(Invalid):
        await here.files.store_output(who.owner_id, task_id, OutputFile("/x", outbox / "link", "x", "", 1))


async def test_the_sweep_removes_what_nobody_knows(here: Platform) -> None:
    who = await here.caller()
    kept = await here.upload(who, b"kept")
    await link(here)
    await here.blobs.put("file_01j00000000000000000000000_abcdef01", chunks(b"orphan"), limit=100)
    assert await here.files.sweep() == 0, "an orphan may be about to get its record"
    here.clock.moved = 61
    assert await here.files.sweep() == 2
    assert await read(here, kept) == b"kept"
    assert len(await here.blobs.keys()) == 1
    assert len((await here.files.list_files(who, ListQuery())).items) == 1


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_old_files_expire(here: Platform) -> None:
    who = await here.caller()
    await here.deploy(who, "name: echo")
    await here.upload(who, b"public", public=True)
    private = await here.upload(who, b"private")
    assert await here.files.expire(here.clock.now() - 1_000_000) == 0
    here.clock.moved = 10
    assert await here.files.expire(here.clock.now() - 1_000_000) == 2, "the private file and the uploaded package"
    assert await here.files.by_uri(private) is None
    assert [file.public for file in (await here.files.list_files(who, ListQuery())).items] == [True]
    assert await here.files.expire(here.clock.now()) == 0


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a.png", "a.png"), ("/etc/passwd", "passwd"), ("C:\\x\\a.txt", "a.txt"), ("", "file"), ("..", "file"),
        ("a\r\nb", "ab"), ("é" * 200 + ".png", "é" * 125 + ".png"),
    ],
)  # fmt: skip
def test_names(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@pytest.mark.parametrize("kind", ["image", "a/b\r\nx: y", "text/html, x", "é/x"])
async def test_content_types_are_media_types(here: Platform, kind: str) -> None:
    with pytest.raises(Invalid) as caught:
        await link(here, content_type=kind)
    assert caught.value.fields[0]["path"] == "/content_type"
