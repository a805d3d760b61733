"""The services over a real store and real blobs, without a dispatcher: builds are only noted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import orjson

from bakehouse.api.app import create_app
from bakehouse.api.common.services import Services
from bakehouse.blobs.disk import DiskBlobs
from bakehouse.build.unpack import read_manifest
from bakehouse.core.app import Function, Resources, Version
from bakehouse.core.clock import SystemClock
from bakehouse.core.errors import Invalid
from bakehouse.core.identity import Caller
from bakehouse.core.task import Event, Task, TaskStatus
from bakehouse.service.apps import Apps, DeploySpec
from bakehouse.service.files import Files, FileSettings, FileSpec
from bakehouse.service.keyfile import ServerSecret
from bakehouse.service.keys import Keys, NewKey
from bakehouse.service.secrets import Secrets
from bakehouse.service.sessions import Sessions
from bakehouse.store import open_store
from bakehouse.store.base import Store

URL = "http://bake.test"


class MovableClock(SystemClock):
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self.moved = 0.0

    def now(self) -> int:
        return super().now() + int(self.moved * 1_000_000)

    def monotonic(self) -> float:
        return super().monotonic() + self.moved


@dataclass
class Platform:
    """The services, and what they asked of rooms that are not here."""

    store: Store
    blobs: DiskBlobs
    clock: MovableClock
    secret: ServerSecret
    files: Files
    apps: Apps
    sessions: Sessions
    secrets: Secrets
    keys: Keys
    builds: list[Task] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def caller(self, owner: str = "local", *scopes: str) -> Caller:
        return await self.keys.authenticate((await self.key(owner, *scopes)).text)

    async def key(self, owner: str = "local", *scopes: str) -> NewKey:
        return await self.keys.create_for(owner, "test", scopes or ("admin",))

    async def upload(self, caller: Caller, content: bytes, **spec: Any) -> str:
        """A stored file's URI."""
        record = await self.files.create(caller, FileSpec(**spec))
        query = httpx.URL(self.files.upload_url(record)).params
        stored = await self.files.receive(record.id, int(query["expires"]), query["signature"], chunks(content))
        return self.files.url(stored)

    async def deploy(self, caller: Caller, manifest: str, code: str = "pass", *, preserve: bool = False) -> Version:
        uri = await self.upload(caller, package(manifest, code), filename="app.zip")
        return (await self.apps.deploy(caller, DeploySpec(uri, preserve_current=preserve))).version

    async def built(self, version: Version) -> Version:
        """*version* as a successful build leaves it."""
        ready = replace(version, status="ready", functions=(FUNCTION,), env_key="env")
        await self.apps.version_built(ready)
        return ready

    async def submit(self, caller: Caller, **fields: Any) -> Task:
        """Accept a build as a server without workers would."""
        now, version = self.clock.now(), cast(Version, fields["version"])
        task = Task(
            fields["task_id"], "build", caller.owner_id, caller.user_id, fields["task_id"], TaskStatus.QUEUED, "build",
            "build", orjson.dumps(fields["input"]).decode(), now, now, version_id=version.id,
            app_id=version.app_id, last_seq=2,
        )  # fmt: skip
        moves = (TaskStatus.RECEIVED, TaskStatus.QUEUED)
        await self.store.accept(task, [Event(i + 1, now, "status", move, 0) for i, move in enumerate(moves)])
        self.builds.append(task)
        return task

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """An HTTP client of the application over these services."""
        services = Services(
            tasks=cast(Any, None), streams=cast(Any, None), apps=self.apps, files=self.files, sessions=self.sessions,
            secrets=self.secrets, keys=self.keys, public_url=URL, webhook_secret=lambda owner: f"whsec_{owner}",
        )  # fmt: skip
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(services)), base_url=URL, headers=headers)


FUNCTION = Function("run", "", {"type": "object"}, {"type": "object"})
GPUS_HERE = 0


def _check_resources(resources: Resources) -> None:
    if resources.gpu_count > GPUS_HERE:
        raise Invalid.at("/inf.yml/resources/gpu/count", "this machine has no GPU")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def package(manifest: str, code: str = "pass") -> bytes:
    """A zip with the two files that every app has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inf.yml", manifest)
        archive.writestr("inference.py", code)
    return buffer.getvalue()


@asynccontextmanager
async def platform(home: Path, database: str | None = None) -> AsyncIterator[Platform]:
    """The services over *home*; the store is checked when it ends."""
    store = open_store(database or f"sqlite:///{home / 'bakehouse.db'}")
    await store.open()
    blobs = DiskBlobs(home / "blobs")
    await blobs.open()
    clock, secret = MovableClock(), ServerSecret.load(home / "secret.key")
    files = Files(store, blobs, clock, secret, FileSettings(URL, max_upload=1_000_000, upload_ttl=60))
    apps = Apps(store, files, clock, read_manifest=read_manifest, check_resources=_check_resources)
    ended: list[str] = []
    sessions = Sessions(store, clock, apps, ended.append)
    made = Platform(
        store, blobs, clock, secret, files, apps, sessions, Secrets(store, clock, secret), Keys(store, clock),
        ended=ended,
    )  # fmt: skip
    apps.submit = made.submit
    try:
        yield made
        assert await store.check_integrity() == []
    finally:
        await store.close()
