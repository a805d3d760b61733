"""Requests and packages that are wrong: one clear answer each, at once, and nothing is queued."""

from __future__ import annotations

import io
import json
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.server import Server

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers()
    server.deploy(APPS / "faulty")
    return server


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert body["status"] == status and body["detail"] and body["code"]
    assert body["error"] == {"code": body["code"], "message": body["detail"]}
    return body


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "\xff", '{"app": }', '{"app": "a", "input": NaN}'])
def test_malformed_json(server: Server, text: str) -> None:
    answer = server.api.post("/apps/run", content=text.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert problem(answer, 400)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/app"),
        ({"app": 5}, "/app"),
        ({"app": "a b"}, "/app"),
        ({"app": "faulty", "input": []}, "/input"),
        ({"app": "faulty:fine", "input": {"n": "x"}}, "/input/n"),
        ({"app": "faulty:fine", "function": "raises"}, "/function"),
        ({"app": "faulty:fine", "setup": {"a": 1}}, "/setup"),
        ({"app": "faulty:fine", "session_timeout": 5}, "/session_timeout"),
        ({"app": "faulty:fine", "run_at": "soon"}, "/run_at"),
        ({"app": "faulty:fine", "timeout": -1}, "/timeout"),
        ({"app": "faulty:fine", "infra": "moon"}, "/infra"),
        ({"app": "faulty:fine", "stream": True}, "/stream"),
        ({"app": "faulty:fine", "webhook": "http://127.0.0.1/x"}, "/webhook"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(server: Server, body: dict[str, Any], path: str) -> None:
    found = problem(server.api.post("/apps/run", json=body), 400)
    assert [item["path"] for item in found["errors"]] == [path]


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "/apps/run", {"app": "nobody/nothing"}),
        ("POST", "/apps/run", {"app": "faulty@00000000"}),
        ("POST", "/apps/run", {"app": "faulty:nothing"}),
        ("POST", "/apps/run", {"app": "faulty:fine", "session": "sess_nothing"}),
        ("GET", "/tasks/task_nothing", None),
        ("GET", "/tasks/task_nothing/stream", None),
        ("POST", "/tasks/task_nothing/cancel", None),
        ("GET", "/files/file_nothing", None),
        ("GET", "/sessions/sess_nothing", None),
        ("GET", "/apps/app_nothing", None),
        ("GET", "/no/such/path", None),
    ],
)
def test_unknown_things_are_404(server: Server, method: str, url: str, body: dict[str, Any] | None) -> None:
    problem(server.api.request(method, url, json=body), 404)


def test_no_key_or_a_wrong_one_is_401(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer inf_wrong"}, {"Authorization": "Basic eDp5"}):
        problem(httpx.post(f"{server.base_url}/apps/run", json={"app": "faulty"}, headers=headers), 401)


def test_a_body_of_1_gib_is_refused_while_it_comes(server: Server) -> None:
    """Announced, it is refused at once; unannounced (chunked), at the limit."""

    def endless() -> Iterator[bytes]:
        block = b" " * 2**20
        for _ in range(1024):
            yield block

    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        head = ["POST /apps/run HTTP/1.1", "Host: x", f"Authorization: Bearer {server.key}", f"Content-Length: {2**30}"]
        line.sendall("\r\n".join([*head, "", ""]).encode())
        line.settimeout(10)
        assert b" 413 " in line.recv(4096).split(b"\r\n")[0]
    try:
        answer = httpx.post(f"{server.base_url}/apps/run", content=endless(), headers=headers, timeout=60)
    except httpx.TransportError:
        return  # the server closed while we were still sending, which is as good
    problem(answer, 413)


def _zip(write: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inf.yml", "name: evil\n")
        archive.writestr("inference.py", "")
        write(archive)
    return buffer.getvalue()


def _bomb(archive: zipfile.ZipFile) -> None:
    """Five gigabytes of zeros: one compressed megabyte, 5120 times. To compress them all takes a minute."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    megabyte = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    archive.writestr(zipfile.ZipInfo("zeros"), megabyte * (5 * 1024) + deflate.flush())
    entry = archive.getinfo("zeros")
    entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, 5 * 2**30


def test_the_bomb_is_one() -> None:
    with zipfile.ZipFile(io.BytesIO(_zip(_bomb))) as archive, archive.open("zeros") as zeros:
        for _ in range(8):
            assert zeros.read(2**20) == bytes(2**20)


def _link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_bomb, id="bomb"),
        pytest.param(lambda archive: archive.writestr("../outside", "x"), id="traversal"),
        pytest.param(lambda archive: archive.writestr("/etc/outside", "x"), id="absolute"),
        pytest.param(_link, id="symlink"),
    ],
)
def test_a_hostile_package_is_refused(server: Server, write: Callable[[zipfile.ZipFile], None]) -> None:
    record = server.upload(_zip(write), "evil.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": record["uri"]}})
    assert answer.status_code in (400, 413), answer.text
    assert not (server.home.parent / "outside").exists()
    assert server.api.get("/apps/local/evil").status_code == 404


def test_an_app_that_needs_what_the_machine_has_not_is_refused(server: Server, tmp_path: Path) -> None:
    app = tmp_path / "huge"
    app.mkdir()
    (app / "inf.yml").write_text("name: huge\nresources:\n  ram: 900\n")
    (app / "inference.py").write_text("")
    with pytest.raises(AssertionError, match=r"ram") as caught:
        server.deploy(app)
    assert "400" in str(caught.value)


def test_an_unknown_key_is_a_warning(server: Server) -> None:
    answer = server.api.post("/apps/run", json={"app": "faulty:fine", "input": {}, "colour": "red"})
    (message,) = answer.json()["messages"]
    assert (answer.status_code, message["code"]) == (200, "unknown_field") and "colour" in message["message"]


def test_another_owner_sees_nothing(server: Server) -> None:
    task = server.run("faulty:fine", {"n": 3})
    other = server.new_owner("other")
    with server.client(key=other) as api:
        for url in (f"/tasks/{task['id']}", f"/tasks/{task['id']}/logs", f"/tasks/{task['id']}/stream"):
            problem(api.get(url), 404)
        problem(api.post(f"/tasks/{task['id']}/cancel"), 404)
        problem(api.post("/apps/run", json={"app": "local/faulty:fine"}), 404)
        assert json.loads(api.post("/tasks/list").text)["data"]["items"] == []
