"""What goes on while the server is killed: calls of every kind, cancels, a stream that is followed over restarts."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import threading
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import TERMINAL, Server

CALLERS = 3
RUNNING = 7
HERE = Path(__file__).parent
APP = "crashtest"


@dataclass
class Job:
    """One call: what was sent, and the task it became once an answer was seen. ``owner`` is its sender's API key."""

    key: str
    body: dict[str, Any]
    task_id: str | None = None
    owner: str | None = None


@dataclass
class Ledger:
    """Everything that was asked of the server, by all callers."""

    jobs: list[Job] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Any = field(default_factory=itertools.count)

    def new(self, rng: random.Random) -> Job:
        function = rng.choices(("quick", "steps", "stubborn", "big"), (4, 2, 1, 4))[0]
        body: dict[str, Any] = {"app": f"{APP}:{function}", "input": {"n": next(self.numbers)}}
        if rng.random() < 0.2:  # an instance of its own: process start and a setup that takes a while
            body["setup"] = {"delay": 0.25, "salt": rng.randrange(10**9)}
        return self.add(body)

    def add(self, body: dict[str, Any], owner: str | None = None) -> Job:
        job = Job(uuid.uuid4().hex, body, owner=owner)
        with self.lock:
            self.jobs.append(job)
        return job


def send(client: httpx.Client, job: Job, wait: float = 0.0) -> dict[str, Any]:
    """Post *job* under its idempotency key, so that sending it again is the same call."""
    headers = {"Idempotency-Key": job.key, **({"Prefer": f"wait={wait:g}"} if wait else {})}
    task: dict[str, Any] = Server.data(client.post("/apps/run", json=job.body, headers=headers))
    job.task_id = task["id"]
    return task


class Callers:
    """Threads that call without pause until they are stopped; a dead server is waited out."""

    def __init__(self, server: Server, ledger: Ledger, seed: int, other_owner: str) -> None:
        self.server, self.ledger = server, ledger
        self.other_owner = other_owner
        self.stopping = threading.Event()
        self.up = threading.Event()
        self.errors: list[str] = []
        self.builds: list[str] = []
        kinds = [self._one] * CALLERS + [self._cancel_while_it_runs, self._deploy]
        self._threads = [
            threading.Thread(target=self._call, args=(kind, random.Random(seed * 100 + i)), daemon=True)
            for i, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        self.up.set()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.up.set()
        for thread in self._threads:
            thread.join(60)

    def _call(self, kind: Callable[[httpx.Client, random.Random], None], rng: random.Random) -> None:
        while not self.stopping.is_set():
            self.up.wait()
            with self.server.client(timeout=20) as client, contextlib.suppress(httpx.TransportError):
                # A transport error is the kill; what was being sent stays in the ledger without an answer.
                while self.up.is_set() and not self.stopping.is_set():
                    try:
                        kind(client, rng)
                    except AssertionError as error:
                        if "503" not in str(error):
                            self.errors.append(str(error))

    def _one(self, client: httpx.Client, rng: random.Random) -> None:
        task = send(client, self.ledger.new(rng), wait=rng.choice((0.1, 1.0)))
        if rng.random() < 0.2 and task["status"] not in TERMINAL:
            Server.data(client.post(f"/tasks/{task['id']}/cancel"))
        self._to_the_end(client, task)  # so that the queue stays short and every state has its share

    @staticmethod
    def _to_the_end(client: httpx.Client, task: dict[str, Any]) -> None:
        while Server.data(client.get(f"/tasks/{task['id']}"))["status"] not in TERMINAL:
            threading.Event().wait(0.02)

    def _cancel_while_it_runs(self, client: httpx.Client, rng: random.Random) -> None:
        """Cancels a call that does not listen, so that it is found cancelling for a while.

        It belongs to an owner of its own, who does not stand behind the other one's queue.
        """
        client.headers["Authorization"] = f"Bearer {self.other_owner}"
        body = {"app": f"local/{APP}:stubborn", "input": {"n": next(self.ledger.numbers), "count": 40}}
        task = send(client, self.ledger.add(body, self.other_owner))
        while task["status"] not in (RUNNING, *TERMINAL):
            task = Server.data(client.get(f"/tasks/{task['id']}"))
            threading.Event().wait(0.01)
        Server.data(client.post(f"/tasks/{task['id']}/cancel"))
        self._to_the_end(client, task)

    def _deploy(self, client: httpx.Client, rng: random.Random) -> None:
        """Deploys the same app with a comment of its own: a build is a task like any other."""
        code = (HERE / "app" / "inference.py").read_text() + f"\n# {rng.random()}\n"
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("inference.py", code)
            # Under a name of its own: a new version of the other app would make all its instances cold.
            archive.writestr("inf.yml", (HERE / "app" / "inf.yml").read_text().replace(APP, "crashbuild"))
        entry = {"uri": "", "filename": "app.zip", "size": len(package.getvalue())}
        (record,) = Server.data(client.post("/files", json={"files": [entry]}))
        client.put(record["upload_url"], content=package.getvalue()).raise_for_status()
        body = {"version": {"package_uri": record["uri"]}}
        task_id = Server.data(client.post("/apps", json=body))["build_task_id"]
        self.builds.append(task_id)
        self._to_the_end(client, {"id": task_id})
        threading.Event().wait(0.5)


class Follower:
    """Reads the stream of one task to its end, over as many connections as it takes."""

    def __init__(self, server: Server, job: Job) -> None:
        self.server, self.job = server, job
        self.seqs: list[int] = []
        self.logs: list[str] = []
        self.last: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _follow(self) -> None:
        pause = threading.Event()
        while self.last.get("status") not in TERMINAL:
            with contextlib.suppress(httpx.TransportError):
                self._read()
            pause.wait(0.05)

    def _read(self) -> None:
        after = self.seqs[-1] if self.seqs else 0
        with (
            self.server.client(timeout=20) as client,
            client.stream(
                "GET",
                f"/tasks/{self.job.task_id}/stream",
                params={"after": after},
                headers={"Accept": "application/x-ndjson"},
            ) as response,
        ):
            if response.status_code != 200:
                return
            for text in response.iter_lines():
                self._take(json.loads(text))

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("type") == "heartbeat":
            return
        self.last = line
        if not self.seqs or line["seq"] > self.seqs[-1]:
            self.seqs.append(line["seq"])
            self.logs += line["logs"]
        elif line["logs"]:
            self.logs.append(f"DOUBLED {line['logs']}")
