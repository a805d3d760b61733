"""kill -9 of the server at random moments: every accepted task ends exactly once, none is lost, streams go on.

``BAKEHOUSE_KILLS`` sets how often (``make test-crash``: 100 per database). With 50 or more the histogram must show
every state that a task can be found in after a kill.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bakehouse.core.task import TaskStatus
from bakehouse.store import open_store
from tests.conftest import StartServer
from tests.crash.workload import Callers, Follower, Job, Ledger, send
from tests.support.postgres import Postgres
from tests.support.server import CANCELLED, COMPLETED, FAILED, TERMINAL, Server
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("BAKEHOUSE_KILLS", "8"))
SEED = int(os.environ.get("BAKEHOUSE_CRASH_SEED", "1"))
APP = Path(__file__).parent / "app"

MUST_HIT = (
    TaskStatus.QUEUED, TaskStatus.SCHEDULED, TaskStatus.PREPARING, TaskStatus.SERVING,
    TaskStatus.SETTING_UP, TaskStatus.RUNNING, TaskStatus.CANCELLING, TaskStatus.UPLOADING,
)  # fmt: skip
"""RECEIVED is not among them: it is stored together with QUEUED, so that no row rests in it."""


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_kill_the_server(database: str, start_server: StartServer, request: pytest.FixtureRequest) -> None:
    url = None
    if database == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database()
    settings = {"LEASE_SECONDS": "2", "CANCEL_GRACE": "5", "MAX_INSTANCES": "10"}
    server = start_server(database=url, env={f"BAKEHOUSE_{name}": value for name, value in settings.items()})
    app = server.deploy(APP)
    server.data(server.api.post(f"/apps/{app['id']}/visibility", json={"visibility": "public"}))
    rng = random.Random(SEED)
    ledger, histogram, followers = Ledger(), Counter[TaskStatus](), []
    callers = Callers(server, ledger, SEED, server.new_owner("other"))
    callers.start()
    for number in range(KILLS):
        followers.append(_follow(server, ledger))
        time.sleep(rng.uniform(0.3, 2.3))
        if number % 2:  # every second kill is aimed, so that short states are met too
            _wait_for(server, MUST_HIT[number // 2 % len(MUST_HIT)])
        callers.up.clear()
        server.kill()
        histogram.update(_states(server, url))
        if number % 5 == 0:  # the next calls must prepare theirs again
            _forget_environments(server)
        server.start()
        callers.up.set()
    callers.stop()
    print(f"\n{database}: {KILLS} kills, {len(ledger.jobs)} calls; states of unfinished tasks at the kills:")
    for status in MUST_HIT:
        print(f"  {status.text:>12} {histogram[status]:5}")
    assert callers.errors == []
    _check_calls(server, ledger)
    _check_builds(server, callers.builds)
    for follower in followers:
        _check_follower(server, follower)
    server.stop()
    assert asyncio.run(_integrity(url or f"sqlite:///{server.home / 'bakehouse.db'}")) == []
    if KILLS >= 50:
        assert {status.text: histogram[status] for status in MUST_HIT if histogram[status] < 3} == {}


def _wait_for(server: Server, status: TaskStatus) -> None:
    """Wait until a task is in *status*, for at most five seconds: the kill comes then in any case."""
    body = {"limit": 1, "filters": [{"field": "status", "operator": "eq", "value": int(status)}]}
    deadline = time.monotonic() + 5
    with server.client() as client:
        while time.monotonic() < deadline:
            if Server.data(client.post("/tasks/list", json=body))["items"]:
                return


def _follow(server: Server, ledger: Ledger) -> Follower:
    job = Job(f"follow-{len(ledger.jobs)}-{time.time_ns()}", {"app": "crashtest:steps", "input": {"n": 7}})
    ledger.jobs.append(job)
    with server.client() as client:
        send(client, job)
    return Follower(server, job)


def _states(server: Server, url: str | None) -> Counter[TaskStatus]:
    query = "SELECT status, count(*) FROM tasks GROUP BY status"
    if url is None:
        connection: Any = sqlite3.connect(server.home / "bakehouse.db")
    else:
        connection = psycopg.connect(url)
    with connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    found = Counter({TaskStatus(status): count for status, count in rows})
    return Counter({status: count for status, count in found.items() if not status.terminal})


def _forget_environments(server: Server) -> None:
    """Move away what was unpacked and installed; a child of the dead server may still be writing there."""
    for name in ("versions", "envs"):
        folder = server.home / name
        folder.rename(server.home / f"{name}-{time.time_ns()}")
        folder.mkdir()


def _check_calls(server: Server, ledger: Ledger) -> None:
    """Every call that was answered, and every one that can be sent again, has one end and the right output."""
    ended: Counter[int] = Counter()
    with ExitStack() as stack:
        clients = {owner: stack.enter_context(server.client(owner)) for owner in {job.owner for job in ledger.jobs}}
        for job in ledger.jobs:
            if job.task_id is None:
                send(clients[job.owner], job)  # the answer was lost with the server: the key finds the task or makes it
        for job in ledger.jobs:
            client = clients[job.owner]
            task = wait_until(partial(_ended, client, job), f"the end of {job.task_id}", 120, every=0.05)
            ended[task["status"]] += 1
            assert task["status"] in (COMPLETED, CANCELLED), (task["error"], task["logs"])
            if task["status"] == COMPLETED:
                assert task["output"]["double"] == 2 * job.body["input"]["n"]
                assert task["output"].get("attempt", task["attempt"]) == task["attempt"]
    print(f"  ended: {ended[COMPLETED]} completed, {ended[CANCELLED]} cancelled")
    assert ended[COMPLETED] > KILLS


def _check_builds(server: Server, builds: list[str]) -> None:
    """Every build that was answered for ends well, unless the server died under both of its attempts."""
    ended: Counter[int] = Counter()
    for task_id in builds:
        task = server.wait(task_id, 120)
        ended[task["status"]] += 1
        lost = task["attempt"] == 2 and "server stopped" in (task["error"] or "")  # a build has one retry
        assert task["status"] == COMPLETED or lost, (task["error"], task["logs"])
    print(f"  builds: {ended[COMPLETED]} completed, {ended[FAILED]} lost their server twice")


def _ended(client: Any, job: Job) -> dict[str, Any] | None:
    task: dict[str, Any] = Server.data(client.get(f"/tasks/{job.task_id}"))
    return task if task["status"] in TERMINAL else None


def _check_follower(server: Server, follower: Follower) -> None:
    """A stream over restarts: seqs without gap, and every log line once, in order."""
    follower.join(60)
    task = server.task(str(follower.job.task_id))
    assert follower.last["status"] == task["status"]
    assert follower.seqs == list(range(1, task["seq"] + 1))
    assert follower.logs == task["logs"]


async def _integrity(url: str) -> list[str]:
    store = open_store(url)
    await store.open()
    try:
        return await store.check_integrity()
    finally:
        await store.close()
