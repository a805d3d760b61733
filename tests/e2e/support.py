"""What the end-to-end tests say to a server, and how they read its streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.server import Server
from tests.support.waiting import wait_until

APPS = Path(__file__).parent / "apps"
RUNNING = 7
NDJSON = {"Accept": "application/x-ndjson"}
SSE = {"Accept": "text/event-stream"}


def send(server: Server, app: str, payload: Mapping[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """Accept a task and do not wait for it."""
    headers = body.pop("headers", None)
    answer = server.api.post("/apps/run", json={"app": app, "input": dict(payload or {}), **body}, headers=headers)
    return dict(Server.data(answer))


def until_logged(server: Server, task_id: str, line: str, timeout: float = 30.0) -> None:
    wait_until(lambda: line in server.task(task_id)["logs"], f"{line!r} in the log of {task_id}", timeout, every=0.05)


def statuses(server: Server, task_id: str) -> list[str]:
    """The names of the states that the task went through, in order."""
    timings = Server.data(server.api.get(f"/tasks/{task_id}/timings"))
    return [event["status_text"] for event in timings["events"]]


def instances(server: Server) -> list[psutil.Process]:
    """The processes of the server's instances, oldest first."""
    found = []
    for process in psutil.Process(server.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile, or is about to
            if "apphost" in " ".join(process.cmdline()):
                found.append((process.create_time(), process.pid, process))
    return [process for _, _, process in sorted(found, key=lambda entry: entry[:2])]


def refusal(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_error, answer.text
    return dict(answer.json())


class Stream:
    """An open stream. ``items`` yields ``(event id or None, object)``; an object of None is a heartbeat."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.sse = response.headers.get("content-type", "").startswith("text/event-stream")
        self._lines = response.iter_lines() if response.status_code == 200 else iter(())

    def items(self) -> Iterator[tuple[int | None, dict[str, Any] | None]]:
        return self._sse() if self.sse else self._ndjson()

    def updates(self) -> Iterator[dict[str, Any]]:
        """The tasks on the stream, without heartbeats; each SSE id equals the object's seq."""
        for number, item in self.items():
            if item is not None:
                assert number in (None, item["seq"])
                yield item

    def _ndjson(self) -> Iterator[tuple[int | None, dict[str, Any] | None]]:
        for line in self._lines:
            item = json.loads(line)
            yield None, None if item.get("type") == "heartbeat" else item

    def _sse(self) -> Iterator[tuple[int | None, dict[str, Any] | None]]:
        number: int | None = None
        for line in self._lines:
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                yield number, json.loads(line[6:])
            elif line.startswith(":"):
                yield None, None


@contextmanager
def streaming(
    server: Server, task_id: str, headers: Mapping[str, str] = NDJSON, key: str | None = None, **query: Any
) -> Iterator[Stream]:
    """The task's stream. *key* "" sends none."""
    with server.client(key, timeout=30) as api:
        if key == "":
            del api.headers["Authorization"]
        with api.stream("GET", f"/tasks/{task_id}/stream", headers=dict(headers), params=query) as response:
            yield Stream(response)


def read_all(
    server: Server, task_id: str, headers: Mapping[str, str] = NDJSON, key: str | None = None, **query: Any
) -> list[dict[str, Any]]:
    """Every update until the server closes the stream."""
    with streaming(server, task_id, headers, key, **query) as stream:
        return list(stream.updates())


def logs_of(updates: list[dict[str, Any]]) -> list[str]:
    return [line for update in updates for line in update["logs"]]
