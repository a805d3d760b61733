"""SIGTERM: no new work, streams end, short tasks finish, long ones go on after the restart."""

from __future__ import annotations

import signal
import subprocess
import threading
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.e2e.support import APPS, NDJSON, SSE, logs_of, read_all, send, statuses, streaming, until_logged
from tests.support.server import CANCELLED, COMPLETED, Server
from tests.support.waiting import wait_until

GRACE = 2


@pytest.fixture(scope="module")
def kept(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_DRAIN_GRACE": str(GRACE), "BAKEHOUSE_MAX_INSTANCES": "4"})
    server.deploy(APPS / "probe")
    return server


@pytest.fixture
def server(kept: Server) -> Server:
    """It runs, whatever the test before did, and has a warm instance."""
    assert kept.process is not None
    if kept.process.poll() is not None:
        kept.start()
    kept.run("probe")
    return kept


class Reader(threading.Thread):
    """Reads a stream to its end in the background."""

    def __init__(self, server: Server, task_id: str, form: dict[str, str]) -> None:
        super().__init__()
        self._where = (server, task_id, form)
        self.updates: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.start()
        assert self.open.wait(20)

    def run(self) -> None:
        with streaming(*self._where) as stream:
            for update in stream.updates():
                self.updates.append(update)
                self.open.set()


def test_a_drain_finishes_what_is_short_and_hands_back_what_is_long(server: Server) -> None:
    short = send(server, "probe:sleeps", {"n": 40})
    long = send(server, "probe:sleeps", {"n": 400}, setup={"colour": "long"})
    later = send(server, "probe", {"text": "later"}, run_at="2100-01-01T00:00:00Z")
    for task in (short, long):
        until_logged(server, task["id"], "line 3")
    readers = [Reader(server, task["id"], form) for task in (short, long) for form in (NDJSON, SSE)]
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{server.base_url}/ready").status_code == 503, "the server to say that it ends", 5)
    refused = server.api.post("/apps/run", json={"app": "probe", "input": {}})
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive(), "streams end with the drain"
    assert server.stop(timeout=GRACE + 15) == 0
    assert not _left_of(server)

    server.start()
    done = server.task(short["id"])
    assert (done["status"], done["attempt"], done["output"]["value"]) == (COMPLETED, 1, 40)
    again = server.wait(long["id"], 60)
    assert (again["status"], again["attempt"], again["output"]["value"]) == (COMPLETED, 2, 400)
    assert statuses(server, long["id"]).count("queued") == 2
    assert server.data(server.api.post(f"/tasks/{later['id']}/cancel"))["status"] == CANCELLED
    for reader in readers[2:]:  # those of the long task go on where they were
        seen = reader.updates
        rest = read_all(server, long["id"], after=seen[-1]["seq"])
        assert rest[-1]["status"] == COMPLETED
        assert logs_of(seen) + logs_of(rest) == again["logs"]


def _left_of(server: Server) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(server.home) in line]


def test_a_drain_with_nothing_to_do_is_quick_and_a_task_for_later_outlives_it(server: Server) -> None:
    later = send(server, "probe", {"text": "later"}, run_at="2100-01-01T00:00:00Z")
    with server.client() as api:
        listed = Server.data(api.get(f"/tasks/{later['id']}"))
        assert listed["status_text"] == "queued"
    assert server.stop(timeout=GRACE + 10) == 0
    server.start()
    assert server.task(later["id"])["status_text"] == "queued"
    assert server.run("probe", {"text": "after"})["output"]["value"] == "after"


def test_a_session_does_not_outlive_its_server(server: Server) -> None:
    session = server.run("probe:count_up", session="new")["session_id"]
    server.stop()
    server.start()
    answer = server.api.post("/apps/run", json={"app": "probe:count_up", "input": {}, "session": session})
    assert answer.status_code == 410
