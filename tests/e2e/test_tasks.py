"""The life of a task: its states, deadlines, repeats, line and cancel."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer
from tests.e2e.support import APPS, refusal, send, statuses, until_logged
from tests.support.server import CANCELLED, COMPLETED, FAILED, Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    server = module_servers(env={"BAKEHOUSE_CANCEL_GRACE": "5", "BAKEHOUSE_MAX_INSTANCES": "6"})
    for name in ("probe", "parallel"):
        server.deploy(APPS / name)
    return server


def test_a_cold_run_passes_every_state_and_a_warm_one_skips_them(server: Server) -> None:
    setup = {"colour": "cold", "delay": 0.05}
    cold, warm = (server.run("probe", {}, setup=setup) for _ in range(2))
    preparing = ["preparing", "serving", "setting_up"]
    before, after = ["received", "queued", "scheduled"], ["running", "completed"]
    assert statuses(server, cold["id"]) == [*before, *preparing, *after]
    assert statuses(server, warm["id"]) == [*before, *after]
    assert warm["output"]["instance"] == cold["output"]["instance"]


def test_timings_say_how_long_each_state_took(server: Server) -> None:
    task = server.run("probe", {}, setup={"colour": "timed", "delay": 0.2})
    timings = Server.data(server.api.get(f"/tasks/{task['id']}/timings"))
    durations = {event["status_text"]: event["duration"] for event in timings["events"]}
    assert durations["setting_up"] >= 0.2
    assert timings["total_duration"] == pytest.approx(sum(durations.values()), abs=0.001)
    assert [group["label"] for group in timings["groups"]] == ["queue", "prepare", "run"]


def test_an_output_file_makes_the_task_pass_uploading(server: Server) -> None:
    task = server.run("probe:writes", {"text": "hello"})
    assert statuses(server, task["id"])[-3:] == ["running", "uploading", "completed"]


def test_prefer_wait_answers_with_the_finished_task_or_the_running_one(server: Server) -> None:
    quick = send(server, "probe", {"text": "quick"}, headers={"Prefer": "wait=30"})
    assert (quick["status"], quick["output"]["value"]) == (COMPLETED, "quick")
    long = send(server, "probe:waits", headers={"Prefer": "wait=1"})
    assert long["status"] not in (COMPLETED, FAILED, CANCELLED)
    server.data(server.api.post(f"/tasks/{long['id']}/cancel"))
    assert server.wait(long["id"])["status"] == CANCELLED


def test_a_repeated_idempotency_key_is_the_same_task_and_other_content_is_refused(server: Server) -> None:
    key = {"Idempotency-Key": "once-and-only-once"}
    first, again = (send(server, "probe", {"n": 1}, headers=key) for _ in range(2))
    assert first["id"] == again["id"]
    assert server.wait(first["id"])["status"] == COMPLETED
    assert send(server, "probe", {"n": 1}, headers=key)["status"] == COMPLETED
    other = server.api.post("/apps/run", json={"app": "probe", "input": {"n": 2}}, headers=key)
    assert other.status_code == 409 and refusal(other)["code"] == "idempotency_conflict"
    with server.client(server.new_owner("idem")) as stranger:
        answer = stranger.post("/apps/run", json={"app": "local/probe", "input": {"n": 2}}, headers=key)
    assert answer.status_code == 404  # a private app; the key of another owner was not looked at


def test_many_repeats_at_once_make_one_task(server: Server) -> None:
    found: list[str] = []

    def repeat() -> None:
        found.append(send(server, "probe", {"n": 3}, headers={"Idempotency-Key": "at-once"})["id"])

    threads = [threading.Thread(target=repeat) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_a_repeated_call_of_a_new_session_opens_one_session(server: Server) -> None:
    before = {session["id"] for session in Server.data(server.api.get("/sessions"))}
    key = {"Idempotency-Key": "one-session"}
    first, again = (send(server, "probe", session="new", headers=key) for _ in range(2))
    assert first["session_id"] == again["session_id"]
    opened = [s for s in Server.data(server.api.get("/sessions")) if s["id"] not in before and s["status"] == "active"]
    assert [session["id"] for session in opened] == [first["session_id"]]
    server.data(server.api.delete(f"/sessions/{first['session_id']}"))


def test_a_task_for_later_waits_for_its_time(server: Server) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    task = send(server, "probe", {"text": "later"}, run_at=moment.isoformat())
    assert task["status_text"] == "queued"
    ended = server.wait(task["id"])
    timings = Server.data(server.api.get(f"/tasks/{task['id']}/timings"))
    started = next(e["timestamp"] for e in timings["events"] if e["status_text"] == "running")
    assert datetime.fromisoformat(started) >= moment
    assert ended["status"] == COMPLETED


def test_a_task_s_deadline_and_an_app_s(server: Server) -> None:
    own = server.run("probe:waits", timeout=0.3)
    assert (own["status"], own["error_code"], own["attempt"]) == (FAILED, "deadline_exceeded", 1)
    assert "0.3" in own["error"]
    apps = server.run("parallel", {"n": 9}, timeout=None)  # waits for eight more calls; inf.yml says 5 s
    assert (apps["status"], apps["error_code"], apps["timeout"]) == (FAILED, "deadline_exceeded", 5)


def test_a_deadline_is_kept_by_code_that_does_not_listen(server: Server) -> None:
    task = server.run("probe:deaf", timeout=0.3)
    assert (task["status"], task["error_code"]) == (FAILED, "deadline_exceeded")


def test_concurrency_runs_calls_together_in_one_instance(server: Server) -> None:
    tasks = [send(server, "parallel", {"n": 3}) for _ in range(3)]
    ended = [server.wait(task["id"]) for task in tasks]
    assert [task["status"] for task in ended] == [COMPLETED] * 3, [task["error"] for task in ended]
    for task in ended:  # each print is with the call that made it
        assert task["logs"][-1:] == [f"call {task['id']}"]


def test_a_cancelled_coroutine_ends_as_cancelled(server: Server) -> None:
    task = send(server, "probe:waits")
    until_logged(server, task["id"], "waiting")
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    ended = server.wait(task["id"])
    assert (ended["status"], ended["error"], ended["output"]) == (CANCELLED, None, None)
    assert "the coroutine was cancelled, requested: True" in ended["logs"]
    assert "on_cancel was called" in ended["logs"]
    assert statuses(server, task["id"])[-3:] == ["running", "cancelling", "cancelled"]
    after = server.run("probe", {"text": "still here"})
    assert after["status"] == COMPLETED


def test_on_cancel_wakes_a_sync_function(server: Server) -> None:
    task = send(server, "probe:works", setup={"colour": "sync"})
    until_logged(server, task["id"], "working")
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    ended = server.wait(task["id"])
    assert "on_cancel was called" in ended["logs"] and "told to stop, requested: True" in ended["logs"]
    assert ended["status"] == CANCELLED


def test_cancel_of_a_task_in_setup(server: Server) -> None:
    task = send(server, "probe", setup={"colour": "slow", "delay": 30.0})
    until_logged(server, task["id"], "setting up slow")
    server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    assert server.wait(task["id"], 15)["status"] == CANCELLED
    assert "running" not in statuses(server, task["id"])


def test_cancel_of_a_task_for_later_is_at_once(server: Server) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task = send(server, "probe", run_at=later)
    answer = Server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    assert answer["status"] == CANCELLED
    assert statuses(server, task["id"]) == ["received", "queued", "cancelled"]


def test_cancel_of_queued_and_prefetched_tasks_is_at_once(server: Server) -> None:
    """Every instance is busy; what stands behind them, in an instance's hand or in line, never runs."""
    for _ in range(3):  # short calls first, so that calls behind them are held ready
        assert server.run("probe")["status"] == COMPLETED
    busy = [send(server, "probe:waits") for _ in range(6)]
    for task in busy:
        until_logged(server, task["id"], "waiting", 60)
    behind = [send(server, "probe") for _ in range(30)]
    for task in behind:
        server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    ended = [server.wait(task["id"], 5) for task in behind]
    assert {task["status"] for task in ended} == {CANCELLED}
    assert all("running" not in statuses(server, task["id"]) for task in behind)
    assert {server.task(task["id"])["status_text"] for task in busy} == {"running"}
    for task in busy:
        server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
        server.wait(task["id"])


def test_cancel_of_a_finished_task_changes_nothing(server: Server) -> None:
    task = server.run("probe", {"text": "done"})
    before = server.task(task["id"])
    answer = Server.data(server.api.post(f"/tasks/{task['id']}/cancel"))
    assert answer["status"] == COMPLETED
    assert server.task(task["id"]) == before


def test_a_running_task_cannot_be_deleted_and_a_finished_one_goes_with_its_files(server: Server) -> None:
    running = send(server, "probe:waits")
    answer = server.api.delete(f"/tasks/{running['id']}")
    assert answer.status_code == 409
    server.data(server.api.post(f"/tasks/{running['id']}/cancel"))
    server.wait(running["id"])
    assert server.api.delete(f"/tasks/{running['id']}").status_code == 200
    assert server.api.get(f"/tasks/{running['id']}").status_code == 404

    task = server.run("probe:writes", {"text": "short-lived"})
    url = task["output"]["file"]
    assert httpx.get(url).text == "short-lived"
    server.data(server.api.delete(f"/tasks/{task['id']}", params={"files": "true"}))
    assert httpx.get(url).status_code == 404
    assert server.api.get(f"/tasks/{task['id']}/stream").status_code == 404


def test_a_full_queue_answers_429_and_nothing_of_it_stays(start_server: StartServer) -> None:
    server = start_server(
        env={
            "BAKEHOUSE_MAX_INSTANCES": "1",
            "BAKEHOUSE_MAX_QUEUE": "6",
            "BAKEHOUSE_MAX_QUEUE_PER_OWNER": "4",
            "BAKEHOUSE_PREFETCH": "0",
        }
    )
    app = server.deploy(APPS / "open")
    server.data(server.api.post(f"/apps/{app['id']}/visibility", json={"visibility": "public"}))

    def fill(api: Any) -> list[Any]:
        body = {"app": "local/open", "input": {"pause": 20}}
        return [api.post("/apps/run", json=body) for _ in range(8)]

    first = fill(server.api)
    refused = [answer for answer in first if answer.status_code == 429]
    assert len(refused) >= 3 and all(answer.status_code in (200, 201, 429) for answer in first)
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "queue_full"
    with server.client(server.new_owner("late")) as late:
        answers = fill(late)
    assert answers[0].is_success and answers[-1].status_code == 429, "another owner's tasks fit, up to the whole"
    listed = Server.data(server.api.post("/tasks/list", json={"limit": 50}))["items"]
    accepted = {Server.data(answer)["id"] for answer in first if answer.is_success}
    assert {task["id"] for task in listed if task["kind"] == "app"} == accepted
    for task_id in accepted:  # a cancelled task gives its place back at once, whoever else waits
        server.data(server.api.post(f"/tasks/{task_id}/cancel"))
    again = server.api.post("/apps/run", json={"app": "local/open", "input": {}})
    assert again.is_success, again.text


def test_one_owner_s_three_hundred_tasks_do_not_hold_up_another_s_one(start_server: StartServer) -> None:
    server = start_server(env={"BAKEHOUSE_MAX_INSTANCES": "2"})
    server.deploy(APPS / "open")
    other = server.new_owner("patient")
    body = {"app": "local/open", "input": {"pause": 0.1}}
    many = [Server.data(server.api.post("/apps/run", json=body))["id"] for _ in range(300)]
    with server.client(other) as api:
        task = Server.data(api.post("/apps/run", json={**body, "input": {}}, headers={"Prefer": "wait=20"}))
    assert task["status"] == COMPLETED, task["status_text"]
    unfinished = [task_id for task_id in many[-100:] if server.task(task_id)["status"] < COMPLETED]
    assert len(unfinished) >= 50, "the one task passed most of the three hundred"


def test_the_inbox_of_a_finished_task_is_closed(server: Server) -> None:
    task = server.run("probe")
    assert server.api.post(f"/tasks/{task['id']}/inbox", json={"content": "late"}).status_code == 409
    wait_until(lambda: server.task(task["id"])["status"] == COMPLETED, "it stays completed", 5)
