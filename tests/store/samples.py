"""Tasks and what hangs on them, with defaults that a test need not care for."""

from __future__ import annotations

from typing import Any

from bakehouse.core.app import App, Function, Limits, Manifest, Requirement, Resources, Version
from bakehouse.core.file import FileRecord
from bakehouse.core.ids import new_id, short_id
from bakehouse.core.session import Session
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.store.base import Store

S = TaskStatus
NOW = 1_700_000_000_000_000


def moved(seq: int, status: TaskStatus, attempt: int = 0, at: int = NOW, data: str | None = None) -> Event:
    return Event(seq, at, "status", status, attempt, data)


def logged(seq: int, status: TaskStatus, attempt: int = 1, text: str = "[]") -> Event:
    return Event(seq, NOW, "log", status, attempt, text)


WAITING = (moved(1, S.RECEIVED), moved(2, S.QUEUED))


def make_task(owner: str = "owner_a", **fields: Any) -> Task:
    task_id = new_id("task")
    plain: dict[str, Any] = {
        "id": task_id, "kind": "app", "owner_id": owner, "user_id": "user_a", "root_id": task_id, "status": S.QUEUED,
        "lane": "lane", "function": "run", "input": "{}", "created_at": NOW, "updated_at": NOW, "last_seq": 2,
    }  # fmt: skip
    return Task(**{**plain, **fields})


async def queued(store: Store, owner: str = "owner_a", **fields: Any) -> Task:
    """A task that waits."""
    task = make_task(owner, **fields)
    assert await store.accept(task, WAITING) is None
    return task


async def claimed(store: Store, holder: str = "holder_a", **fields: Any) -> Task:
    """A task that *holder* has just claimed."""
    task = await queued(store, **fields)
    return (await store.claim([task.id], holder))[0]


def move(task: Task, status: TaskStatus, *, seq: int | None = None, **fields: Any) -> TaskWrite:
    """The write that moves *task*, which is as the store knows it, to *status*."""
    event = moved(seq or task.last_seq + 1, status, task.attempt)
    return TaskWrite(task.id, task.attempt, (event,), status=status, **fields)


async def ended(store: Store, **fields: Any) -> Task:
    """A task that has completed."""
    task = await claimed(store, **fields)
    assert await store.write(move(task, S.COMPLETED, output='{"a":1}'))
    return await store.get_task(task.id, None)


def make_app(owner: str = "owner_a", name: str = "echo", **fields: Any) -> App:
    return App(new_id("app"), owner, fields.pop("namespace", "local"), name, "private", NOW, NOW, **fields)


def make_version(app: App, digest: str = "d1", **fields: Any) -> Version:
    version_id = new_id("ver")
    manifest = Manifest(
        "echo", resources=Resources(gpu_count=1), secrets=(Requirement("TOKEN", "why"),), limits=Limits(memory=5),
        env={"A": "b"}, metadata={"x": [1]},
    )  # fmt: skip
    plain: dict[str, Any] = {"short_id": short_id(version_id), "status": "building", "package_file_id": "file_a"}
    plain |= {"functions": (Function("run", "does", {"type": "object"}, {}, capabilities=("stream",)),)}
    return Version(
        id=version_id, app_id=app.id, owner_id=app.owner_id, digest=digest, created_at=NOW, manifest=manifest,
        **{**plain, **fields},
    )  # fmt: skip


def make_file(owner: str = "owner_a", **fields: Any) -> FileRecord:
    plain: dict[str, Any] = {"filename": "a.txt", "content_type": "text/plain", "size": None, "public": False}
    plain |= {"category": "upload", "created_at": NOW}
    return FileRecord(id=new_id("file"), owner_id=owner, capability=new_id("cap"), **{**plain, **fields})


def make_session(owner: str = "owner_a", **fields: Any) -> Session:
    plain: dict[str, Any] = {"status": "active", "idle_timeout": 10, "created_at": NOW, "updated_at": NOW}
    plain |= {"expires_at": NOW + 10_000_000}
    return Session(id=new_id("sess"), owner_id=owner, app_id="app_a", version_id="ver_a", **{**plain, **fields})
