"""The client and the server together, also while the server is killed, stopped and started again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inferencesh import AsyncInference, Inference, StreamingOptions, TaskCancelled, TaskFailed, TaskTimeout
from infsh import File

from tests.support.server import Server

KIT = Path(__file__).parent / "apps" / "kit"
PATIENT = StreamingOptions(max_retries=20, retry_delay=0.1)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(bakehouse_server: Server) -> Server:
    bakehouse_server.deploy(KIT)
    return bakehouse_server


@pytest.fixture
def client(server: Server) -> Iterator[Inference]:
    with Inference(server.key, base_url=server.base_url) as found:
        yield found


def tick(ticks: int, pause: float = 0.01) -> dict[str, Any]:
    return {"app": "sdk-kit", "input": {"ticks": ticks, "pause": pause}}


def test_a_run_brings_output_and_all_logs(client: Inference) -> None:
    task = client.run(tick(3))
    assert (task.status, task.output, task.logs) == ("completed", {"value": 3}, ["tick 0", "tick 1", "tick 2"])


def test_a_stream_tells_the_whole_story_once(client: Inference) -> None:
    updates = list(client.run(tick(5), stream=True))
    states = [str(update.status) for update in updates]
    assert states[:2] == ["received", "queued"]
    assert states[-1] == "completed"
    assert [log for update in updates for log in update.logs] == [f"tick {n}" for n in range(5)]
    assert {"current": 5, "total": 5} in [
        {name: update["progress"][name] for name in ("current", "total")} for update in updates if update["progress"]
    ]


def test_failure_is_raised_with_the_traceback_in_the_logs(client: Inference) -> None:
    with pytest.raises(TaskFailed, match="out of paper") as caught:
        client.run({"app": "sdk-kit:fail", "input": {}})
    assert any("Traceback" in line for line in caught.value.task["logs"])
    *_, last = client.stream_task(caught.value.task_id)
    assert (last.status, last.error) == ("failed", caught.value.task["error"])


def test_waiting_ends_and_the_task_can_be_cancelled(client: Inference) -> None:
    with pytest.raises(TaskTimeout) as caught:
        client.run(tick(1000, 0.05), timeout=1.0)
    client.cancel(caught.value.task_id)
    with pytest.raises(TaskCancelled):
        client.wait_for_completion(caught.value.task_id, timeout=30)
    client.cancel_task(caught.value.task_id)


@pytest.mark.parametrize("form", ["path", "Path", "File", "bytes", "data"])
def test_files_reach_the_app(client: Inference, tmp_path: Path, form: str) -> None:
    path = tmp_path / "note.txt"
    path.write_bytes(b"x" * 1234)
    forms: dict[str, Any] = {
        "path": str(path), "Path": path, "File": File(path=str(path)), "bytes": b"y" * 1234,
        "data": "data:text/plain," + "z" * 1234,
    }  # fmt: skip
    task = client.run({"app": "sdk-kit:size", "input": {"file": forms[form]}})
    assert task.output == {"value": 1234}


def test_sessions_keep_their_state(client: Inference) -> None:
    with client.session("sdk-kit") as session:
        first = session.call("increment").output["value"]  # a warm instance may have counted before
        assert [session.call("increment").output["value"] for _ in range(2)] == [first + 1, first + 2]
        assert session.info()["call_count"] >= 3
        assert session.keepalive()["status"] == "active"
        session_id = session.session_id
    assert session_id is not None
    assert client.sessions.get(session_id)["status"] == "ended"


async def test_many_at_once(server: Server) -> None:
    async with AsyncInference(server.key, base_url=server.base_url) as client:
        tasks = await asyncio.gather(*(client.run(tick(2)) for _ in range(20)))
        assert len({task.id for task in tasks}) == 20
        assert all(task.output == {"value": 2} for task in tasks)


def test_records(client: Inference) -> None:
    task = client.run(tick(2))
    assert task.id in [found.id for found in client.tasks.list(limit=5)]
    assert [entry["content"] for entry in client.tasks.logs(task.id)["logs"]] == ["tick 0", "tick 1"]
    assert client.tasks.timings(task.id)["total_duration"] > 0
    assert client.apps.get("local/sdk-kit")["name"] == "sdk-kit"
    client.tasks.delete(task.id)
    assert task.id not in [found.id for found in client.tasks.list(limit=5)]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_stream_outlives_its_server(start_server: Any, end: str) -> None:
    server = start_server()
    server.deploy(KIT)
    client = Inference(server.key, base_url=server.base_url)
    first_log = threading.Event()
    updates: list[Any] = []

    def read() -> None:
        for update in client.run(tick(40, 0.05), stream=True, options=PATIENT):
            updates.append(update)
            if update.logs:
                first_log.set()

    # The server is started by the main thread: it dies with the thread that started it.
    reader = threading.Thread(target=read)
    reader.start()
    assert first_log.wait(30)
    getattr(server, end)()
    server.start()
    reader.join(60)
    assert updates[-1].status == "completed"
    record = client.get_task(updates[-1].id)
    assert [log for update in updates for log in update.logs] == record.logs
    assert record.logs[-40:] == [f"tick {n}" for n in range(40)]
    assert [update["seq"] for update in updates] == sorted(update["seq"] for update in updates)


def test_waiting_outlives_a_server(start_server: Any) -> None:
    server = start_server()
    server.deploy(KIT)
    client = Inference(server.key, base_url=server.base_url, max_retries=8)  # the first look may meet nobody
    started = client.run(tick(30, 0.05), wait=False)
    found: list[Any] = []
    waiter = threading.Thread(
        target=lambda: found.append(client.wait_for_completion(started.id, options=PATIENT, timeout=60))
    )
    waiter.start()
    server.restart()
    waiter.join(60)
    assert found[0].output == {"value": 30}
