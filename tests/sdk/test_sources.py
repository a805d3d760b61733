"""What is uploaded and what stays text."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import pydantic
import pytest
from inferencesh._errors import BadFile
from inferencesh._sources import collect, is_uploadable_text, upload_of
from infsh import File

from tests.sdk.far_end import FarEnd, reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def content(upload: Any) -> bytes:
    with upload.open() as file:
        found: bytes = file.read()
    return found


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.parametrize(
    "form", [str, Path, lambda p: File(path=str(p)), lambda p: File.from_path(str(p)), lambda p: p.open("rb")]
)
def test_forms_of_a_file(picture: Path, form: Any) -> None:
    upload = upload_of(form(picture))
    assert content(upload) == content(upload) == PNG
    assert (upload.size, upload.filename, upload.content_type) == (len(PNG), "picture.png", "image/png")


def test_a_file_keeps_the_name_and_type_it_was_given(picture: Path) -> None:
    upload = upload_of(File(path=str(picture), filename="mine.webp", content_type="image/webp"))
    assert (upload.filename, upload.content_type) == ("mine.webp", "image/webp")


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO])
def test_forms_of_bytes(form: Any) -> None:
    upload = upload_of(form(PNG))
    assert (content(upload), upload.content_type) == (PNG, "application/octet-stream")


@pytest.mark.parametrize(
    ("text", "expected", "kind"),
    [
        ("data:image/png;base64," + base64.b64encode(PNG).decode(), PNG, "image/png"),
        ("data:text/plain;charset=utf-8,a%20b", b"a b", "text/plain"),
        ("data:,hello", b"hello", "text/plain"),
        (base64.b64encode(PNG).decode(), PNG, "application/octet-stream"),
    ],
)
def test_forms_of_text(text: str, expected: bytes, kind: str) -> None:
    upload = upload_of(text)
    assert (content(upload), upload.content_type, upload.size) == (expected, kind, len(expected))


def test_an_open_file_is_read_from_where_it_stands_and_stays_open(picture: Path) -> None:
    with picture.open("rb") as file:
        file.seek(8)
        upload = upload_of(file)
        assert content(upload) == content(upload) == PNG[8:]
        assert not file.closed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/no/such/file.png", "neither an existing file"),
        ("no-such.png", "neither an existing file"),
        ("data:image/png;base64,???", "no valid base64"),
        (Path("/no/such/file.png"), "does not exist"),
        (Path("/dev/null"), "not a regular file"),
        (Path("/tmp"), "not a regular file"),
        (File(path="/no/such/file.png"), "does not exist"),
        (io.StringIO("text"), "open as text"),
        (12, "cannot upload a int"),
    ],
)
def test_what_cannot_be_read_is_refused(value: Any, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        upload_of(value)


def test_which_plain_strings_stand_for_files(picture: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert is_uploadable_text(str(picture))
    assert is_uploadable_text("data:image/png;base64,AAAA")
    for text in [
        "",
        "a prompt",
        str(tmp_path),
        str(fifo),
        "/no/such",
        "https://x/y.png",
        "data: it",
        "x" * 100_000,
        "a\0b",
    ]:
        assert not is_uploadable_text(text), text[:20]


def test_inputs_are_copied_and_their_files_replaced(
    picture: Path, far: FarEnd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FILE_CACHE_DIR", str(tmp_path / "cache"))
    far.on("GET", "/else.png", reply(PNG))

    class Deep(pydantic.BaseModel):
        image: Any
        size: int = pydantic.Field(3, alias="Size")

    value = {
        "a": str(picture),
        "b": ["text", {"c": picture, "d": (1, b"raw")}],
        "e": Deep(image=File(path=str(picture))),
        "f": File(uri=f"{far.url}/else.png"),
        "g": None,
    }
    box, found = collect(value)
    assert len(found) == 4
    for index, item in enumerate(found):
        item.put(f"uri:{index}")
    assert box["value"] == {
        "a": "uri:0",
        "b": ["text", {"c": "uri:1", "d": [1, "uri:2"]}],
        "e": {"image": "uri:3", "Size": 3},
        "f": f"{far.url}/else.png",
        "g": None,
    }
    assert value["a"] == str(picture)
