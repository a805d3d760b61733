"""Streams over HTTP: two forms of one resource, resumed anywhere, to readers fast, late and asleep."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import StartServer
from tests.e2e.support import APPS, NDJSON, SSE, instances, logs_of, read_all, refusal, send, streaming, until_logged
from tests.support.server import CANCELLED, COMPLETED, FAILED, Server
from tests.support.waiting import wait_until

BOTH = pytest.mark.parametrize("form", [NDJSON, SSE], ids=["ndjson", "sse"])


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_MAX_INSTANCES": "6", "BAKEHOUSE_LOG_LEVEL": "debug"})
    server.deploy(APPS / "probe")
    server.run("probe")
    return server


def durable(updates: list[dict[str, Any]]) -> list[int]:
    """The seqs that the updates carry, each once, in the order of their first sight."""
    return list(dict.fromkeys(update["seq"] for update in updates))


@BOTH
def test_a_stream_tells_the_whole_story_and_ends(server: Server, form: Mapping[str, str]) -> None:
    task = send(server, "probe:sleeps", {"n": 12})
    updates = read_all(server, task["id"], form)
    last = updates[-1]
    assert (last["status"], last["output"]["value"]) == (COMPLETED, 12)
    assert durable(updates) == list(range(1, last["seq"] + 1))
    lines = server.task(task["id"])["logs"]
    assert logs_of(updates) == lines and lines[-12:] == [f"line {n}" for n in range(12)]
    assert [u["status"] for u in updates] == sorted(u["status"] for u in updates)
    seen = [u["progress"]["current"] for u in updates if u["progress"]]
    assert seen == sorted(seen) and seen[-1] == 11
    assert all(not {"data", "fields", "event", "delta", "type"} & set(update) for update in updates)


@BOTH
def test_a_finished_task_is_told_again_from_the_start(server: Server, form: Mapping[str, str]) -> None:
    task = server.run("probe:sleeps", {"n": 5})
    updates = read_all(server, task["id"], form)
    assert durable(updates) == list(range(1, task["seq"] + 1))
    assert logs_of(updates) == task["logs"]
    assert updates[-1]["output"] == task["output"]


@BOTH
@pytest.mark.parametrize("live", [True, False], ids=["live", "finished"])
def test_resume_at_every_seq_without_gap_or_double(server: Server, form: Mapping[str, str], live: bool) -> None:
    """Read a little, leave, and go on after the last seq, again and again."""
    task = send(server, "probe:sleeps", {"n": 40 if live else 10})
    if not live:
        server.wait(task["id"])
    after, lines, seqs = 0, [], []
    header = {"Last-Event-ID": ""} if form is SSE else {}
    for _ in range(1000):
        query = {} if form is SSE else {"after": after}
        headers = {**form, **({"Last-Event-ID": str(after)} if header and after else {})}
        with streaming(server, task["id"], headers, **query) as stream:
            # One durable update of each connection; what is live only repeats the seq that is known.
            update = next(u for u in stream.updates() if u["seq"] > after)
        assert update["seq"] == after + 1, (after, update)
        after = update["seq"]
        seqs.append(after)
        lines += update["logs"]
        if update["status"] in (COMPLETED, FAILED):
            break
    ended = server.task(task["id"])
    assert seqs == list(range(1, ended["seq"] + 1))
    assert lines == ended["logs"]


def test_readers_who_come_together_see_the_same(server: Server) -> None:
    task = send(server, "probe:sleeps", {"n": 20})
    with streaming(server, task["id"]) as one, streaming(server, task["id"], SSE) as two:
        first, second = list(one.updates()), list(two.updates())
    assert logs_of(first) == logs_of(second) == server.task(task["id"])["logs"]
    assert durable(first) == durable(second)


def test_a_late_reader_gets_the_story_so_far_and_the_newest_snapshot(server: Server) -> None:
    task = send(server, "probe:floods", {"n": 200, "size": 10})
    until_logged(server, task["id"], "partial 10")
    with streaming(server, task["id"]) as stream:
        found = []
        for update in stream.updates():
            found.append(update)
            if update["partial_output"]:
                break
    assert found[0]["seq"] == 1 and found[0]["status_text"] == "received"
    assert int(found[-1]["partial_output"]["value"][:6]) >= 9, "the newest one, not the first"
    tail = server.task(task["id"])["seq"]
    with streaming(server, task["id"], after=tail) as stream:
        snapshot = next(update for update in stream.updates() if update["partial_output"])
    assert snapshot["seq"] >= tail and int(snapshot["partial_output"]["value"][:6]) >= 9
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    ended = read_all(server, task["id"])
    assert ended[-1]["status"] == CANCELLED and ended[-1]["partial_output"] is None


def test_who_may_read(server: Server) -> None:
    task = server.run("probe")
    assert read_all(server, task["id"], SSE, key="", access_token=server.key)[-1]["status"] == COMPLETED
    url = f"{server.base_url}/tasks/{task['id']}"
    assert httpx.get(f"{url}/stream").status_code == 401
    assert httpx.get(f"{url}/stream", params={"access_token": "wrong"}).status_code == 401
    assert httpx.get(url, params={"access_token": server.key}).status_code == 401, "only streams take it"
    stranger = server.new_owner("reader")
    assert httpx.get(f"{url}/stream", params={"access_token": stranger}).status_code == 404
    requests = [line for line in server.log_tail(10**7).splitlines() if "/stream" in line]
    assert len(requests) > 3 and server.key not in "".join(requests), "the key of a query is not logged"


def test_an_event_source_that_reconnects_after_the_end_is_told_to_stop(server: Server) -> None:
    task = server.run("probe")
    with streaming(server, task["id"], {**SSE, "Last-Event-ID": str(task["seq"])}) as stream:
        assert stream.response.status_code == 204
    behind = read_all(server, task["id"], {**SSE, "Last-Event-ID": str(task["seq"] - 1)})
    assert [update["seq"] for update in behind] == [task["seq"]]
    beyond = read_all(server, task["id"], NDJSON, after=task["seq"])
    assert [update["status"] for update in beyond] == [COMPLETED], "a reader always learns how it ended"


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30])
def test_a_cursor_that_is_none(server: Server, cursor: str) -> None:
    task = server.run("probe")
    answer = server.api.get(f"/tasks/{task['id']}/stream", params={"after": cursor})
    assert answer.status_code == 400 and "/after" in str(refusal(answer))


@BOTH
def test_a_quiet_task_has_a_heart_that_beats_within_five_seconds(server: Server, form: Mapping[str, str]) -> None:
    task = send(server, "probe:waits")
    until_logged(server, task["id"], "waiting")
    with streaming(server, task["id"], form, after=server.task(task["id"])["seq"]) as stream:
        items = stream.items()
        _, snapshot = next(items)
        assert snapshot is not None and snapshot["status_text"] == "running"
        began = time.monotonic()
        assert next(items) == (None, None)
        assert time.monotonic() - began < 5
        server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
        rest = [item for _, item in items if item is not None]
    assert rest[-1]["status"] == CANCELLED


def test_an_error_is_told_by_the_last_update(server: Server) -> None:
    task = send(server, "probe:generates", {"n": 0})
    last = read_all(server, task["id"])[-1]
    assert (last["status"], last["error_code"]) == (FAILED, "no_output") and last["error"]


def test_a_lost_attempt_is_visible_and_clears_its_partial_output(server: Server) -> None:
    task = send(server, "probe:floods", {"n": 500, "size": 10}, setup={"colour": "lost"})
    until_logged(server, task["id"], "partial 5")
    with streaming(server, task["id"], after=server.task(task["id"])["seq"]) as stream:
        updates = stream.updates()
        assert next(updates)["attempt"] == 1
        for process in instances(server):
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with the one killed before, its parent
                process.kill()
        again = next(update for update in updates if update["attempt"] == 2)
        assert again["partial_output"] is None
        assert next(u for u in updates if u["partial_output"])["attempt"] == 2
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    assert server.wait(task["id"])["status"] == CANCELLED


def _memory(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def test_readers_that_do_not_read_cost_no_memory_and_do_not_hold_up_the_task(server: Server) -> None:
    """Six readers open the stream and read nothing while the task yields 100 partial outputs of 512 KiB each."""
    size, count = 512 * 1024, 100
    warm_up = server.run("probe:floods", {"n": 4, "size": size}, wait=60)
    assert warm_up["status"] == COMPLETED
    before = _memory(server)
    task = send(server, "probe:floods", {"n": count, "size": size})
    asleep = [_silent_reader(server, task["id"]) for _ in range(6)]
    peak = 0

    def ended() -> bool:
        nonlocal peak
        peak = max(peak, _memory(server))
        return server.api.get(f"/tasks/{task['id']}/status").json()["data"]["status"] >= COMPLETED

    wait_until(ended, "the task to end", 90, every=0.05)
    assert server.task(task["id"])["output"]["value"] == "flooded"
    assert peak - before < 40 * 2**20, f"{(peak - before) / 2**20:.0f} MiB more"
    for reader in asleep:  # awake at last: it gets the end, and not the fifty megabytes
        text = _rest(reader)
        assert '"value":"flooded"' in text[-20_000:]
        assert len(text) < 30 * 2**20


def test_a_reader_that_does_not_read_costs_nothing_while_a_task_prints(server: Server) -> None:
    """Fifty megabytes of log pass a reader that is asleep; awake, it reads on from the store, each line once."""
    before = _memory(server)
    task = send(server, "probe:chatters", {"n": 50, "size": 10_000}, setup={"colour": "chatty"})
    asleep = _silent_reader(server, task["id"])
    peak = 0

    def ended() -> bool:
        nonlocal peak
        peak = max(peak, _memory(server))
        return server.api.get(f"/tasks/{task['id']}/status").json()["data"]["status"] >= COMPLETED

    wait_until(ended, "the task to end", 90, every=0.05)
    assert peak - before < 80 * 2**20, f"{(peak - before) / 2**20:.0f} MiB more"
    lines = [json.loads(text) for text in _rest(asleep).splitlines() if text.startswith('{"id"')]
    assert lines[-1]["status"] == COMPLETED
    logs = [text for text in logs_of(lines) if text.startswith("line ")]
    assert logs == [text for text in server.task(task["id"])["logs"] if text.startswith("line ")]
    assert len(logs) == len(set(logs)) > 1000


def _silent_reader(server: Server, task_id: str) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    request = (
        f"GET /tasks/{task_id}/stream HTTP/1.1\r\nHost: bake\r\nAuthorization: Bearer {server.key}\r\n"
        "Accept: application/x-ndjson\r\nConnection: close\r\n\r\n"
    )
    reader.sendall(request.encode())
    return reader


def _rest(reader: socket.socket) -> str:
    reader.settimeout(30)
    parts = []
    while part := reader.recv(1 << 20):
        parts.append(part)
    reader.close()
    return b"".join(parts).decode()


def test_a_reader_that_leaves_leaves_nothing_behind(server: Server) -> None:
    task = send(server, "probe:waits")
    until_logged(server, task["id"], "waiting")
    process = psutil.Process(server.pid)
    before = process.num_fds()
    for _ in range(20):
        with streaming(server, task["id"]) as stream:
            next(stream.updates())
    wait_until(lambda: process.num_fds() <= before + 2, "the streams' sockets to be closed", 10)
    metrics = httpx.get(f"{server.base_url}/metrics").text

    def open_streams() -> float:
        text = httpx.get(f"{server.base_url}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("bakehouse_streams_open"))

    assert "bakehouse_streams_open" in metrics
    wait_until(lambda: open_streams() == 0, "no open stream in the metrics", 10)
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    server.wait(task["id"])


def test_a_large_input_is_left_out_of_long_lines(server: Server) -> None:
    task = send(server, "probe", {"text": "y" * 200_000})
    with server.client() as api, api.stream("GET", f"/tasks/{task['id']}/stream", headers=NDJSON) as response:
        lines = [json.loads(line) for line in response.iter_lines()]
    assert all(line["input"] == {} and line["input_elided"] for line in lines if line.get("type") != "heartbeat")
    assert lines[-1]["status"] == COMPLETED
    assert len(server.task(task["id"])["input"]["text"]) == 200_000
