"""Files of inputs and outputs, and what is told by webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.e2e.support import APPS, refusal, send, until_logged
from tests.support.server import CANCELLED, COMPLETED, FAILED, Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_ALLOW_PRIVATE_WEBHOOKS": "true"})
    server.deploy(APPS / "probe")
    return server


class Outside:
    """An HTTP server outside of ours: it serves ``/file`` and records what is posted to ``/hook``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fetched: list[str] = []
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []


@contextmanager
def outside() -> Iterator[Outside]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.fetched.append(self.path)
            self._answer(200, b"from outside")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            here.told.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self._answer(here.answers.pop(0) if here.answers else 200, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Outside(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield here
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


# ---- files ------------------------------------------------------------------------------------------------------


def test_an_input_file_is_fetched_once_to_the_cache(server: Server) -> None:
    with outside() as web:
        url = f"{web.url}/file/page.txt"
        first, second = (server.run("probe:reads", {"file": url, "more": url}) for _ in range(2))
    assert (first["status"], second["status"]) == (COMPLETED, COMPLETED), first["error"]
    assert {text for _, _, text in first["output"]["value"]} == {"from outside"}
    assert web.fetched == ["/file/page.txt"], "one fetch for two fields of two calls"


def test_an_uploaded_file_reaches_the_app_and_is_listed_with_the_task(server: Server) -> None:
    record = server.upload(b"mine", "notes.txt", "text/plain")
    for value in (record["uri"], {"uri": record["uri"], "filename": "notes.txt"}):
        task = server.run("probe:reads", {"file": value})
        assert task["status"] == COMPLETED, task["error"]
        ((path, _, text),) = task["output"]["value"]
        assert text == "mine" and path.endswith(".txt")
    inputs = Server.data(server.api.get(f"/tasks/{task['id']}/files", params={"role": "input"}))
    assert [(f["id"], f["role"]) for f in inputs] == [(record["id"], "input")]


def test_a_file_that_cannot_be_fetched_fails_the_task_with_its_address(server: Server) -> None:
    task = server.run("probe:reads", {"file": f"{server.base_url}/nothing/here.txt"})
    assert task["status"] == FAILED and "404" in task["error"], task["error"]


def test_an_output_file_is_stored_and_served_in_parts(server: Server) -> None:
    task = server.run("probe:writes", {"text": "0123456789"})
    url = task["output"]["file"]
    assert url.startswith(server.base_url) and task["output"]["where"] not in url
    whole = httpx.get(url)
    assert whole.text == "0123456789" and whole.headers["content-type"].startswith("text/plain")
    disposition = whole.headers["content-disposition"]
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%26%20more.txt" in disposition
    part = httpx.get(url, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "234", "bytes 2-4/10")
    assert httpx.get(url, headers={"Range": "bytes=99-"}).status_code == 416
    outputs = Server.data(server.api.get(f"/tasks/{task['id']}/files", params={"role": "output"}))
    assert [(f["uri"], f["size"]) for f in outputs] == [(url, 10)]
    server.data(server.api.delete(f"/files/{outputs[0]['id']}"))
    assert httpx.get(url).status_code == 404
    assert server.task(task["id"])["output"]["file"] == url, "the task tells what was; the capability is gone"


def test_the_output_of_one_task_is_the_input_of_another(server: Server) -> None:
    url = server.run("probe:writes", {"text": "passed on"})["output"]["file"]
    task = server.run("probe:reads", {"file": url})
    assert task["output"]["value"][0][2] == "passed on"


def test_nothing_of_a_call_stays_in_the_temp_directory(server: Server) -> None:
    where = server.run("probe:writes", {"text": "x"})["output"]["where"]
    again = server.run("probe:surroundings")["output"]["value"]
    assert again["temp"] and not list((server.home / "outbox").rglob("*.txt"))
    name = where.rsplit("/", 1)[-1]
    left = [path for path in (server.home / "instances").rglob(name) if "cache" not in path.parts]
    assert not left, "what stays is in the cache of fetched inputs only"


# ---- webhooks ---------------------------------------------------------------------------------------------------


def verified(server: Server, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The body, after a check of its signature as https://www.standardwebhooks.com says."""
    secret = base64.b64decode(Server.data(server.api.get("/me"))["webhook_secret"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{expected}" in headers["webhook-signature"].split(" ")
    return dict(json.loads(body)["data"])


def test_the_end_of_a_task_is_told_once_and_signed(server: Server) -> None:
    with outside() as web:
        task = server.run("probe", {"text": "told"}, webhook=f"{web.url}/hook")
        wait_until(lambda: web.told, "the webhook", 15)
        told = verified(server, *web.told[0])
    assert (told["id"], told["status"], told["output"]) == (task["id"], COMPLETED, task["output"])
    assert len(web.told) == 1


@pytest.mark.parametrize("how", ["running", "waiting", "failing"])
def test_every_kind_of_end_is_told(server: Server, how: str) -> None:
    with outside() as web:
        hook = {"webhook": f"{web.url}/hook"}
        if how == "failing":
            expected, task = FAILED, send(server, "probe:generates", {"n": 0}, **hook)
        else:
            later = {"run_at": "2100-01-01T00:00:00Z"} if how == "waiting" else {}
            expected, task = CANCELLED, send(server, "probe:waits", **hook, **later)
            if how == "running":
                until_logged(server, task["id"], "waiting")
            server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
        wait_until(lambda: web.told, "the webhook", 15)
        told = verified(server, *web.told[0])
    assert (told["id"], told["status"]) == (task["id"], expected)


def test_a_failed_delivery_is_tried_again_with_the_same_id_and_delays_nothing(server: Server) -> None:
    with outside() as web:
        web.answers = [500]
        task = server.run("probe", {"text": "again"}, webhook=f"{web.url}/hook", wait=10)
        assert task["status"] == COMPLETED
        wait_until(lambda: len(web.told) == 2, "the second try", 25)
        first, second = web.told
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert verified(server, *second)["id"] == task["id"]


def test_private_addresses_are_refused_unless_allowed(start_server: StartServer) -> None:
    server = start_server()
    server.deploy(APPS / "open")
    for url in ("http://127.0.0.1/x", "http://localhost:9/x", "http://10.1.2.3/x", "http://[::1]/x", "ftp://a.b/x"):
        answer = server.api.post("/apps/run", json={"app": "open", "input": {}, "webhook": url})
        assert answer.status_code == 400 and "/webhook" in str(refusal(answer)), url
