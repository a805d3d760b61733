"""`File` in all its forms, `download`, and the cache behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from infsh import BaseAppInput, BaseAppOutput, File, StorageDir, download
from pydantic import ValidationError

from tests.infsh.web import serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FILE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_path_need_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    file = File(path=str(path))
    assert (file.exists(), file.is_local(), file.is_resolved()) == (False, False, True)
    assert (file.content_type, file.size, file.filename) == ("image/png", None, "file.png")
    path.write_bytes(b"123")
    file.refresh_metadata()
    assert (file.exists(), file.size) == (True, 3)


def test_given_metadata_wins_until_refreshed(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(b"123")
    file = File(path=path, content_type="image/x", filename="custom.png", size=1024)
    assert (file.content_type, file.filename, file.size) == ("image/x", "custom.png", 1024)
    file.refresh_metadata()
    assert (file.content_type, file.filename, file.size) == ("image/png", "file.png", 3)


def test_forms_of_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hi")
    monkeypatch.chdir(tmp_path)
    forms = [
        File("a.txt"),
        File(path),
        File.from_path("a.txt"),
        File({"path": str(path)}),
        File(File(path)),
        File(uri="a.txt"),
    ]
    assert [file.path for file in forms] == [str(path)] * len(forms)
    assert open(forms[0]).read() == "hi"  # noqa: PTH123, SIM115 - that `open` takes it is the point
    assert forms[1].to_dict() == {"path": str(path), "content_type": "text/plain", "size": 2, "filename": "a.txt"}


@pytest.mark.parametrize(
    ("uri", "data", "kind"),
    [
        ("data:text/plain;base64,aGk=", b"hi", "text/plain"),
        ("data:text/plain;charset=utf-8;base64,aGk", b"hi", "text/plain"),
        ("data:image/png;base64,-_-_", b"\xfb\xff\xbf", "image/png"),
        ("data:,a%20b%ff", b"a b\xff", "text/plain"),
        ("data:text/html,<p>a,b</p>", b"<p>a,b</p>", "text/html"),
    ],
)
def test_data_uris_become_local_files(uri: str, data: bytes, kind: str) -> None:
    file = File(uri)
    assert file.path is not None
    assert Path(file.path).read_bytes() == data
    assert (file.content_type, file.size) == (kind, len(data))


@pytest.mark.parametrize("bad", ["data:nothing", "data:;base64,!!!"])
def test_malformed_data_uris_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="data URI"):
        File(bad)


def test_neither_path_nor_uri() -> None:
    with pytest.raises(ValueError, match="Either 'uri' or 'path' must be provided"):
        File(filename="x")
    with pytest.raises(ValueError, match="made of int"):
        File(3)  # type: ignore[arg-type]


def test_urls_are_downloaded_once(cache: Path) -> None:
    with serving(lambda asked: (200, b"bytes of " + asked.path.encode())) as web:
        first = File(f"{web.url}/pictures/a%20b.png?size=1")
        again = File(uri=f"{web.url}/pictures/a%20b.png?size=1")
        other = File(f"{web.url}/pictures/a%20b.png?size=2")
        assert [asked.path for asked in web.asked] == ["/pictures/a%20b.png?size=1", "/pictures/a%20b.png?size=2"]
    assert first.path == again.path != other.path
    assert (first.filename, first.content_type) == ("a b.png", "image/png")
    assert first.path is not None
    assert Path(first.path).is_relative_to(cache)


def test_several_processes_download_once(cache: Path) -> None:
    with serving(lambda asked: (200, b"x" * 1_000_000)) as web:
        script = f"from infsh import File; print(File('{web.url}/big').size)"
        started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)]
        assert [process.communicate()[0] for process in started] == [b"1000000\n"] * 3
        assert len(web.asked) == 1
    assert not list(cache.rglob(".partial-*"))


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (500, 2)])
def test_a_failed_download_leaves_nothing_behind(cache: Path, status: int, requests: int) -> None:
    with serving(lambda asked: (status, b"no")) as web:
        with pytest.raises(RuntimeError, match=f"cannot download {web.url}/x: .*{status}"):
            File(f"{web.url}/x")
        assert len(web.asked) == requests
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


class Model(BaseAppInput):
    zebra: File
    apple: File | None = None


class Out(BaseAppOutput):
    image: File


def test_files_in_models(tmp_path: Path) -> None:
    schema = Model.model_json_schema()
    assert list(schema["properties"]) == ["zebra", "apple"]
    assert schema["properties"]["zebra"]["format"] == "file"
    assert Model.model_validate({"zebra": "data:,x"}).zebra.size == 1
    assert Out(image=File(path=tmp_path / "r.png")).model_dump(mode="json")["image"] == {
        "path": str(tmp_path / "r.png"), "content_type": "image/png", "filename": "r.png",
    }  # fmt: skip
    for bad in ("", None, 3, {}, {"uri": ""}, "data:x"):
        with pytest.raises(ValidationError) as caught:
            Model.model_validate({"zebra": bad})
        assert caught.value.errors()[0]["loc"] == ("zebra",)


def test_a_failed_download_names_its_field() -> None:
    with pytest.raises(ValidationError, match="cannot download"):
        Model.model_validate({"zebra": "http://127.0.0.1:1/x"})


def test_download_into_a_folder(tmp_path: Path) -> None:
    with serving(lambda asked: (200, b"weights")) as web:
        path = download(f"{web.url}/model.bin", tmp_path / "models")
        assert download(f"{web.url}/model.bin", str(tmp_path / "models")) == path
        assert len(web.asked) == 1
    assert Path(path).read_bytes() == b"weights"
    assert Path(path).is_relative_to(tmp_path / "models")


def test_storage_folders_follow_the_environment(tmp_path: Path) -> None:
    script = (
        "import json; from infsh import StorageDir as S; "
        "print(json.dumps([S.DATA.value, str(S.TEMP.path), S.CACHE.value]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"INFSH_TEMP_DIR": str(tmp_path / "t")}, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == ["/app/data", str(tmp_path / "t"), "/app/cache"]
    assert (tmp_path / "t").is_dir()
    assert StorageDir.DATA.value == "/app/data"
