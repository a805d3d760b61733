"""The parts of one server, put together. Reading this file top to bottom is the shortest tour of the house."""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from bakehouse.api.app import Services, create_app
from bakehouse.api.inferencesh.shapes import webhook_body
from bakehouse.api.inferlets import router as dialogue_router
from bakehouse.blobs.disk import DiskBlobs
from bakehouse.build.builder import Builder, BuildSettings
from bakehouse.build.executor import BuildExecutor
from bakehouse.build.machine import check_resources, read_machine
from bakehouse.core.app import INFERLET, Limits, Resources, Version
from bakehouse.core.clock import SECOND, SystemClock
from bakehouse.core.errors import BakehouseError, NotFound, TooLarge
from bakehouse.core.executor import Executor, OutputFile
from bakehouse.core.file import FileRecord
from bakehouse.core.ids import new_id
from bakehouse.core.task import Task
from bakehouse.dispatch.dispatcher import Dispatcher, Helpers
from bakehouse.dispatch.recovery import Recovery
from bakehouse.engine.spec import ModelSpec
from bakehouse.launch.base import Environment, Hooks, LaunchSettings
from bakehouse.launch.local import LocalExecutor
from bakehouse.live.memory import MemoryLive
from bakehouse.llm.base import Hooks as InferletHooks
from bakehouse.llm.inferlets import InferletExecutor
from bakehouse.observe.metrics import Metrics
from bakehouse.service.apps import Apps
from bakehouse.service.files import Files, FileSettings
from bakehouse.service.keyfile import ServerSecret
from bakehouse.service.keys import Keys
from bakehouse.service.outputs import Outputs
from bakehouse.service.secrets import Secrets
from bakehouse.service.sessions import Sessions
from bakehouse.service.streams import Streams
from bakehouse.service.tasks import QueueLimits, Tasks
from bakehouse.service.webhooks import Webhooks, WebhookSettings
from bakehouse.settings import Settings
from bakehouse.store import open_store
from bakehouse.wiring.chosen import FOLDER
from bakehouse.wiring.dialogues import NodeInferlets
from bakehouse.wiring.inferlets import Builds, InferletBuilder, guess_type, inferlet_settings, read_package
from bakehouse.wiring.nodes import make_node
from bakehouse.wiring.removals import Removals
from bakehouse.wiring.tools import isolated_spawn

log = structlog.get_logger(__name__)

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes of log kept per task."""

SECONDS_PER_DAY = 86400

ENVIRONMENT_DAYS = 30
"""An environment that ran nothing for so long is deleted; the next call of its app builds it again."""


class Platform:
    """One server. ``start`` opens the store and takes back what a dead server left; ``drain`` and ``stop`` end it."""

    def __init__(self, settings: Settings, url: str, models: Sequence[ModelSpec] | None = None) -> None:
        """*models* are served instead of those that are recorded in the data directory."""
        self.settings, self.url = settings, url
        self.node = make_node(settings, models)
        self.runs_inferlets = self.node is not None and settings.inferlets != "off"
        self.ready = False
        self.draining = False
        self._background: list[asyncio.Task[None]] = []
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.store = open_store(settings.database, on_commit=self.metrics.commit)
        self.live = MemoryLive()
        self.streams = Streams(self.store, self.live)
        self._make_services()
        self._make_executors()
        self._make_dispatch()
        self._watch()
        talks = self.node is not None and self.runs_inferlets
        self.app = create_app(self._services(), [dialogue_router] if talks else [])
        if self.node is not None:
            self.app.state.inferlets = NodeInferlets(self.node, self.keys)

    # ---- parts ------------------------------------------------------------------------------------------------

    def _make_services(self) -> None:
        settings, store, clock = self.settings, self.store, self.clock
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = ServerSecret.load(settings.secret)
        machine = read_machine()

        def machine_has(resources: Resources) -> None:
            check_resources(resources, machine)

        self.machine = machine
        self.blobs = DiskBlobs(settings.blobs)
        limits = FileSettings(self.url, settings.max_upload, int(settings.upload_url_ttl))
        self.files = Files(store, self.blobs, clock, secret, limits)
        self.keys = Keys(store, clock)
        self.secrets = Secrets(store, clock, secret)
        hooks = WebhookSettings(allow_private=settings.allow_private_webhooks)
        self.webhooks = Webhooks(store, clock, secret, webhook_body, hooks)
        read_manifest = functools.partial(read_package, inferlets=self.runs_inferlets)
        self.apps = Apps(store, self.files, clock, read_manifest=read_manifest, check_resources=machine_has)
        self.sessions = Sessions(store, clock, self.apps, self._end_session)
        self.tasks = Tasks(
            store=store,
            live=self.live,
            clock=clock,
            apps=self.apps,
            secrets=self.secrets,
            sessions=self.sessions,
            limits=QueueLimits(settings.max_queue, settings.max_queue_per_owner),
            check_resources=lambda version: machine_has(version.manifest.resources),
            check_webhook=self.webhooks.check_url,
            file_by_uri=self.files.by_uri,
            default_timeout=settings.task_timeout,
        )
        self.apps.submit = self.tasks.submit

    def _make_executors(self) -> None:
        settings = self.settings
        self.launcher = LocalExecutor(
            _launch_settings(settings, len(self.machine.gpus)),
            Hooks(
                prepare=self._prepare,
                environ=self._environ,
                session_lost=self._session_lost,
                instance_log=_log_instance,
            ),
        )
        self.builder = Builder(
            BuildSettings(settings.home, dict(os.environ)),
            fetch_package=self._package,
            describe=self.launcher.describe,
            machine=self.machine,
            spawn=isolated_spawn(_launch_settings(settings, 0)),
        )
        spawn = isolated_spawn(_launch_settings(settings, 0))
        programs = InferletBuilder(self.builder, self.node, settings.home, spawn, os.environ)
        build = BuildExecutor(Builds(self.builder, programs), self.apps.version_built)
        self.executors: dict[str, Executor] = {"app": self.launcher, "build": build}
        if self.node is not None and self.runs_inferlets:
            hooks = InferletHooks(programs.prepare, self._owner_name, self._keep_file, self._file_bytes)
            self.inferlets = InferletExecutor(self.node, hooks, inferlet_settings(settings))
            self.executors[INFERLET] = self.inferlets
            folder = settings.home / FOLDER / "removals"
            self.apps.removal = Removals(folder, self.node, self.apps.has_label, self._spawn)

    def _make_dispatch(self) -> None:
        holder = new_id("srv")
        helpers = Helpers(
            version=self.apps.version,
            known_version=self.apps.known_version,
            place_outputs=Outputs(self.files).place,
            context=self._context,
            taken=self.streams.follow,
            finished=self._finished,
        )
        self.dispatcher = Dispatcher(
            store=self.store,
            live=self.live,
            clock=self.clock,
            executors=self.executors,
            helpers=helpers,
            holder=holder,
            log_limit=LOG_LIMIT,
        )
        self.tasks.desk = self.dispatcher
        for executor in self.executors.values():
            executor.on_capacity(self.dispatcher.wake)
        sole = self.settings.database.startswith("sqlite:")
        self.recovery = Recovery(
            self.dispatcher, self.store, self.clock,
            address=self.url, lease_seconds=self.settings.lease_seconds, sole=sole,
        )  # fmt: skip

    def _services(self) -> Services:
        settings = self.settings
        return Services(
            tasks=self.tasks,
            streams=self.streams,
            apps=self.apps,
            files=self.files,
            sessions=self.sessions,
            secrets=self.secrets,
            keys=self.keys,
            webhook_secret=self.webhooks.secret,
            public_url=self.url,
            max_body=settings.max_body,
            allow_origins=settings.allow_origins,
            access_log=settings.log_level == "debug",
            not_ready=self._not_ready,
            metrics=self.metrics.render,
            on_request=self.metrics.request,
        )

    def _watch(self) -> None:
        metrics, dispatcher = self.metrics, self.dispatcher
        metrics.watch("queue_depth", "Tasks that wait for an instance", lambda: {"": len(dispatcher.backlog)})
        metrics.watch("tasks_active", "Running tasks by state", dispatcher.states, label="status")
        metrics.watch("instances", "App instances by state", self.launcher.states, label="state")
        if self.node is not None and self.runs_inferlets:
            running = self.inferlets.calls
            metrics.watch("inferlets", "Inferlets that run as tasks", lambda: {"": len(running)})
        metrics.watch("streams_open", "Task streams that are being read", lambda: {"": self.live.streams})

    # ---- what the parts ask of each other -----------------------------------------------------------------------

    async def _prepare(self, version: Version) -> Environment:
        ready = await self.builder.prepare(version)
        return Environment(ready.python, ready.app_dir)

    async def _environ(self, owner_id: str, version: Version) -> dict[str, str]:
        """An app's own variables: its manifest's and, unless it is shared between owners, its owner's secrets."""
        manifest = version.manifest
        if manifest.shared or not manifest.secrets:
            return dict(manifest.env)
        values = await self.secrets.values(owner_id, {secret.key for secret in manifest.secrets})
        return {**manifest.env, **values}

    async def _package(self, version: Version) -> Any:
        return await self.files.local(await self.store.get_file(id=version.package_file_id))

    async def _owner_name(self, owner_id: str) -> str:
        return (await self.store.owner(id=owner_id)).name

    async def _keep_file(self, task: Task, data: bytes, number: int) -> tuple[FileRecord, str]:
        """Store the file that an inferlet sent."""
        folder = self.settings.home / "outbox"
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{task.id}-", delete=False) as file:
            path = Path(file.name)
            await asyncio.to_thread(file.write, data)
        try:
            output = OutputFile("", path, f"file-{number}", guess_type(data), len(data))
            record = await self.files.store_output(task.owner_id, task.id, output)
        finally:
            path.unlink(missing_ok=True)
        return record, self.files.url(record)

    async def _file_bytes(self, uri: str, most: int) -> bytes:
        """The bytes behind a URI of ours, for an inferlet's `receive_file`."""
        record = await self.files.by_uri(uri)
        if record is None:
            raise NotFound(f"{uri} is no file of this server")
        if record.size is not None and record.size > most:
            raise TooLarge(f"the file has {record.size} bytes; the limit file is {most}")
        return await asyncio.to_thread((await self.files.local(record)).read_bytes)

    def _end_session(self, session_id: str) -> None:
        self.launcher.end_session(session_id)

    def _session_lost(self, session_id: str, reason: str) -> None:
        self._spawn(self.sessions.lost(session_id, reason))

    def _context(self, task: Task, version: Version | None) -> dict[str, Any]:
        """What an app may know of its call."""
        return {
            "task_id": task.id,
            "app_id": task.app_id,
            "app_version_id": task.version_id,
            "owner_id": task.owner_id,
            "team_id": task.owner_id,
            "user_id": task.user_id,
            "session_id": task.session_id,
            "worker_id": self.dispatcher.holder,
            "gpu_ids": [],
            "attempt": task.attempt,
        }

    def _finished(self, task: Task) -> None:
        ended, started = task.finished_at or task.updated_at, task.started_at
        self.metrics.task_ended(
            task.status.text,
            queued=(started - task.created_at) / SECOND if started else None,
            ran=(ended - started) / SECOND if started else None,
            total=(ended - task.created_at) / SECOND,
        )
        if task.kind == "build":
            self._spawn(self.apps.build_ended(task))
        if task.options and '"webhook"' in task.options:
            self.webhooks.wake()

    def _not_ready(self) -> str | None:
        if self.draining:
            return "this server is stopping"
        return None if self.ready else "this server is starting"

    def not_enforced(self) -> list[str]:
        """Which parts of the isolation of apps this machine cannot give."""
        return self.launcher.not_enforced()

    def serves(self) -> list[str]:
        """What this server serves beside apps, a line each, for the person who started it."""
        if self.node is None:
            return []
        models = ", ".join(self.node.models) or "none"
        return [f"models: {models} (loading)", f"inferlets: {'on' if self.runs_inferlets else 'off'}"]

    # ---- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything but HTTP. Raises BakehouseError where the database cannot be used."""
        await self.store.open()
        await self.blobs.open()
        for executor in self.executors.values():
            await executor.start_up()
        if self.node is not None:
            self.node.start()
        await self.recovery.start_up()
        await self.apps.recover()
        if self.settings.database.startswith("sqlite:"):
            await self.sessions.instances_lost()
        for duty in (self.recovery.run, self.webhooks.run, self.sessions.run_expiry, self._janitor):
            self._spawn_forever(duty)

    async def drain(self, grace: float) -> None:
        """No new claims, streams told to reconnect, running tasks finished or handed back within *grace* seconds."""
        self.draining = True
        self.streams.draining = True
        await self.dispatcher.drain(grace)

    async def stop(self) -> None:
        """Let go of everything. May follow a failed start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for executor in self.executors.values():
            await executor.shut_down(0.0)
        if self.node is not None:
            await self.node.close()
        try:
            await self.store.retire(self.dispatcher.holder)
        except BakehouseError as error:
            log.warning("lease not given back", action="retire_failed", error=error.detail)
        await self.store.close()

    async def _janitor(self) -> None:
        """Retention, once an hour: finished tasks, abandoned uploads, environments that no app uses."""
        while True:
            await asyncio.sleep(3600)
            days = self.settings.retention_tasks
            if days:
                before = self.clock.now() - int(days * SECONDS_PER_DAY * SECOND)
                while await self.store.purge_tasks(before, 500):
                    log.info("old tasks deleted", action="tasks_purged")
            if self.settings.retention_files:
                before = self.clock.now() - int(self.settings.retention_files * SECONDS_PER_DAY * SECOND)
                while await self.files.expire(before):
                    log.info("old files deleted", action="files_expired")
            await self.files.sweep()
            await self._discard_environments()

    async def _discard_environments(self) -> None:
        for instance in self.launcher.instances.values():
            self.builder.used(instance.version)
        count = await asyncio.to_thread(self.builder.discard_unused, ENVIRONMENT_DAYS * SECONDS_PER_DAY)
        if count:
            log.info("unused environments deleted", action="environments_discarded", count=count)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.dispatcher.spawn(work)

    def _spawn_forever(self, duty: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await duty()
            except Exception:
                log.exception("a duty ended", action="duty_ended", duty=duty.__qualname__)
                raise

        self._background.append(asyncio.create_task(run()))


def _launch_settings(settings: Settings, gpus: int) -> LaunchSettings:
    default = LaunchSettings(settings.home)
    limits = Limits(
        memory=settings.memory_limit or default.limits.memory,
        processes=settings.process_limit or default.limits.processes,
        file_size=settings.file_size_limit or default.limits.file_size,
        cpu_time=int(settings.cpu_time_limit) if settings.cpu_time_limit else None,
    )
    return LaunchSettings(
        settings.home,
        max_instances=settings.max_instances or default.max_instances,
        idle_timeout=settings.idle_timeout,
        startup_timeout=settings.startup_timeout,
        setup_timeout=settings.setup_timeout,
        cancel_grace=settings.cancel_grace,
        limits=limits,
        memory_budget=settings.memory_budget or default.memory_budget,
        prefetch=settings.prefetch,
        isolation=settings.isolation,
        gpus=tuple(range(gpus)),
    )


def _log_instance(instance_id: str, version_id: str, stream: str, lines: list[str]) -> None:
    for line in lines:
        log.info(line, action="instance_log", instance=instance_id, version=version_id, stream=stream)
