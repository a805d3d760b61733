"""What a deployer hears of a bad package: at once where the package shows it, else from the build task."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.support import app_files, make_zip
from tests.support.server import Server

HEAD = """
from infsh import BaseApp, BaseAppInput, BaseAppOutput

class Input(BaseAppInput):
    text: str = ""

class Output(BaseAppOutput):
    text: str

class App(BaseApp):
    async def run(self, input_data: Input) -> Output:
        return Output(text="ok")
"""


def post(server: Server, package: Path) -> tuple[int, dict[str, object]]:
    record = server.upload(package.read_bytes(), "app.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": record["uri"]}})
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"../evil.py": "x", **app_files()}, 400, "leaves the package"),
        ({"zeros": bytes(80 << 20), **app_files()}, 413, "times its size"),
        ({"readme.txt": "no app"}, 400, "no inf.yml"),
        (app_files(inf_yml="name: a\nresources: {gpu: {count: many}}"), 400, "/inf.yml/resources/gpu/count"),
        (app_files(inf_yml="name: a\nresources: {ram: 999}"), 400, "GB memory"),
        (app_files(inf_yml="name: a\nresources: {gpu: {count: 64}}"), 400, "64 GPU"),
    ],
)
def test_a_bad_package_is_refused_at_once(
    bakehouse_server: Server, tmp_path: Path, files: dict[str, str | bytes], status: int, words: str
) -> None:
    answered, body = post(bakehouse_server, make_zip(tmp_path / "app.zip", files))
    assert answered == status, body
    assert words in str(body["detail"])


def test_a_file_that_is_no_archive_is_refused_at_once(bakehouse_server: Server, tmp_path: Path) -> None:
    (tmp_path / "app.zip").write_bytes(b"hello")
    status, body = post(bakehouse_server, tmp_path / "app.zip")
    assert status == 400
    assert "neither a zip nor a tar.gz" in str(body["detail"])


def test_a_failed_build_says_why_and_the_app_before_stays(bakehouse_server: Server, tmp_path: Path) -> None:
    manifest = "name: twice\nunknown_key: 1\n"
    good = make_zip(tmp_path / "good.zip", app_files(inf_yml=manifest, inference_py=HEAD))
    bad = make_zip(
        tmp_path / "bad.zip", app_files(inf_yml=manifest, inference_py=f"import nowhere_to_be_found\n{HEAD}")
    )
    status, body = post(bakehouse_server, good)
    assert status == 200, body
    assert "/inf.yml/unknown_key" in str(body["messages"])
    assert bakehouse_server.wait(body["data"]["build_task_id"])["status_text"] == "completed"
    status, body = post(bakehouse_server, bad)
    build = bakehouse_server.wait(body["data"]["build_task_id"])
    assert build["status_text"] == "failed"
    assert "does not load: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in build["error"]
    assert "Traceback" in "\n".join(map(str, build["logs"]))
    assert bakehouse_server.run("twice")["output"]["text"] == "ok"


def test_requirements_that_cannot_be_had_fail_the_build_with_uv_s_words(
    bakehouse_server: Server, tmp_path: Path
) -> None:
    files = app_files(inf_yml="name: needy", inference_py=HEAD, requirements_txt="--no-index\nno-such-thing==9\n")
    _, body = post(bakehouse_server, make_zip(tmp_path / "app.zip", files))
    build = bakehouse_server.wait(body["data"]["build_task_id"])
    assert build["status_text"] == "failed"
    assert "no-such-thing" in build["error"]
    assert bakehouse_server.api.post("/apps/run", json={"app": "needy", "input": {}}).status_code in (404, 409)
