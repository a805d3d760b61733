"""Apps: deploy, resolve, list, change. What an app is called decides who may run it; its code is the build room's."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from bakehouse.core.app import App, Manifest, Resources, Version
from bakehouse.core.clock import Clock
from bakehouse.core.errors import BakehouseError, Conflict, Forbidden, Invalid, NotConfigured, NotFound
from bakehouse.core.file import FileRecord
from bakehouse.core.identity import Caller
from bakehouse.core.ids import new_id, short_id
from bakehouse.core.refs import Ref, parse_ref
from bakehouse.core.task import Task
from bakehouse.service.files import Files
from bakehouse.store.base import ListQuery, Page, Store

ReadManifest = Callable[[Path], tuple[Manifest, str, list[str]]]
"""Reads a package: its manifest, the digest of its content, warnings. Blocks; raises Invalid and TooLarge."""

RESOLVE_SECONDS = 1.0
"""How long another process's change of an app may go unseen."""
RESOLVE_SIZE = 4096
VERSIONS_SIZE = 1024


class SubmitTask(Protocol):
    """How a build task is accepted (``Tasks.submit``)."""

    async def __call__(
        self, caller: Caller, *, kind: str, lane: str, function: str, input: dict[str, Any], retries: int,
        task_id: str, version: Version, app_ref: str,
    ) -> Task: ...  # fmt: skip


class Removal(Protocol):
    """What the versions of an app that is deleted have left elsewhere, to be removed there."""

    async def note(self, versions: Sequence[Version]) -> None:
        """Remember them, whatever happens: before they are gone."""
        ...

    def begin(self) -> None:
        """Remove what is noted and is no more, soon."""
        ...


@dataclass(frozen=True, slots=True)
class DeploySpec:
    """What a caller says beside the package, which has the last word. ``preserve_current`` leaves ``@latest`` alone."""

    package_uri: str
    namespace: str | None = None
    name: str | None = None
    title: str | None = None
    description: str | None = None
    preserve_current: bool = False


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy came to. ``version.build_task_id`` is the task to follow, unless the version is ready already."""

    app: App
    version: Version
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AppChange:
    """Fields to change; None leaves one alone."""

    title: str | None = None
    description: str | None = None
    category: str | None = None
    visibility: str | None = None
    metadata: dict[str, Any] | None = None


class Apps:
    """See the module's text. ``submit`` and ``removal`` are handed over by wiring: they need this service first."""

    def __init__(
        self,
        store: Store,
        files: Files,
        clock: Clock,
        *,
        read_manifest: ReadManifest,
        check_resources: Callable[[Resources], None],
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._read_manifest = read_manifest
        self._check_resources = check_resources
        self._resolved: dict[tuple[str, ...], tuple[float, App, Version]] = {}
        self._ready: OrderedDict[str, Version] = OrderedDict()
        self.submit: SubmitTask | None = None
        self.removal: Removal | None = None

    # ---- deploy -----------------------------------------------------------------------------------------------
    async def deploy(self, caller: Caller, spec: DeploySpec) -> Deployed:
        """Make a version of the package and start its build; the same content again is the version that is there.

        Raises Forbidden (scope, namespace), Invalid with paths (package, manifest, resources), TooLarge, Conflict
        (a label that names other content).
        """
        caller.need("deploy")
        record = await self._files.by_uri(spec.package_uri)
        if record is None or record.owner_id != caller.owner_id:
            raise Invalid.at("/version/package_uri", "must be the uri of a file of yours, from POST /files")
        path = await self._files.local(record)
        manifest, digest, warnings = await asyncio.to_thread(self._read_manifest, path)
        self._check_namespace(caller, "/namespace", spec.namespace)
        self._check_namespace(caller, "/inf.yml/namespace", manifest.namespace)
        self._check_resources(manifest.resources)
        if spec.name and spec.name != manifest.name:
            warnings = [*warnings, f"the name is {manifest.name!r}, as inf.yml says"]
        version = self._new_version(caller, digest, manifest)
        app, stored = await self._store.create_version(await self._new_app(caller, spec, manifest, version), version)
        self._resolved.clear()
        if stored.build_task_id == version.build_task_id:
            await self._begin_build(caller, app, stored, record, make_current=not spec.preserve_current)
        elif stored.status == "ready" and not spec.preserve_current:
            app = await self._point(app, stored)
        return Deployed(app, stored, warnings)

    async def _begin_build(
        self, caller: Caller, app: App, version: Version, package: FileRecord, *, make_current: bool
    ) -> None:
        try:
            await self._files.keep_package(package, version.package_file_id)
            await self._build(caller, app, version, make_current=make_current)
        except BakehouseError as error:
            # Nobody would ever finish it: as a failed one it can be deployed again.
            failed = replace(version, status="failed", error=f"the build could not begin: {error.detail}")
            await self._store.finish_version(failed, make_current=False)
            raise

    @staticmethod
    def _check_namespace(caller: Caller, path: str, namespace: str | None) -> None:
        if namespace is not None and namespace != caller.owner_name:
            raise Forbidden(
                f"{path}: this key deploys to the namespace {caller.owner_name!r}, not to {namespace!r}",
                code="forbidden",
            )

    def _new_version(self, caller: Caller, digest: str, manifest: Manifest) -> Version:
        version_id = new_id("ver")
        return Version(
            id=version_id,
            app_id="",
            owner_id=caller.owner_id,
            short_id=short_id(version_id),
            digest=digest,
            status="building",
            created_at=self._clock.now(),
            package_file_id=new_id("file"),
            manifest=manifest,
            label=manifest.label,
            build_task_id=new_id("task"),
        )

    async def _new_app(self, caller: Caller, spec: DeploySpec, manifest: Manifest, version: Version) -> App:
        now = version.created_at
        try:
            before = await self._store.get_app(namespace=caller.owner_name, name=manifest.name)
        except NotFound:
            before = None
        # A manifest that says nothing of visibility must not take back what was published by hand.
        visibility = before.visibility if before and manifest.visibility == "private" else manifest.visibility
        return App(
            id=before.id if before else new_id("app"),
            owner_id=caller.owner_id,
            namespace=caller.owner_name,
            name=manifest.name,
            visibility=visibility,
            created_at=before.created_at if before else now,
            updated_at=now,
            current_version_id=before.current_version_id if before else None,
            title=spec.title or (before.title if before else ""),
            description=manifest.description or spec.description or "",
            category=manifest.category,
            metadata=manifest.metadata,
        )

    async def _build(self, caller: Caller, app: App, version: Version, *, make_current: bool) -> None:
        if self.submit is None:
            raise NotConfigured("this process takes no tasks")
        await self.submit(
            caller,
            kind="build",
            lane="build",
            function="build",
            input={"version_id": version.id, "app": f"{app.namespace}/{app.name}", "make_current": make_current},
            retries=1,
            task_id=version.build_task_id or new_id("task"),
            version=version,
            app_ref=f"{app.namespace}/{app.name}@{version.short_id}",
        )

    # ---- after the build --------------------------------------------------------------------------------------
    async def version_built(self, version: Version) -> None:
        """Store a build's outcome. May be repeated. A ready version becomes the current one, unless the deploy asked
        not to, or one that was deployed later is current by now."""
        ready = version.status == "ready"
        await self._store.finish_version(version, make_current=ready and await self._becomes_current(version))
        self._resolved.clear()
        if ready:
            self._remember(version)
            if self.removal is not None and await self._is_deleted(version.app_id):
                await self.removal.note([version])
                self.removal.begin()

    async def _is_deleted(self, app_id: str) -> bool:
        try:
            await self._store.get_app(id=app_id)
        except NotFound:
            return True
        return False

    async def build_ended(self, task: Task) -> None:
        """A build task has ended: a version that nobody finished has failed."""
        if task.version_id is None:
            return
        version = await self._store.get_version(id=task.version_id)
        if version.status == "building" and version.build_task_id == task.id:
            reason = task.error or f"the build was {task.status.text}"
            await self.version_built(replace(version, status="failed", error=reason))

    async def recover(self) -> None:
        """After a crash: start builds whose task was never accepted, fail versions whose task ended without them."""
        for version in await self._store.versions_building():
            task = await self._build_task(version)
            if task is None:
                await self._build_again(version)
            elif task.status.terminal:
                await self.build_ended(task)

    async def _build_again(self, version: Version) -> None:
        try:
            app = await self._store.get_app(id=version.app_id)
            await self._store.get_file(id=version.package_file_id)
        except NotFound:
            # The crash came before the package was kept, or the app was deleted.
            await self.version_built(replace(version, status="failed", error="the server stopped before its build"))
            return
        owner = await self._store.owner(id=version.owner_id)
        server = Caller(owner.id, owner.name, "", "", frozenset({"deploy"}))
        await self._build(server, app, version, make_current=True)

    async def _becomes_current(self, version: Version) -> bool:
        try:
            app = await self._store.get_app(id=version.app_id)
        except NotFound:
            return False  # it was deleted during the build
        if app.current_version_id is None:
            return True
        task = await self._build_task(version)
        if task is not None and not orjson.loads(task.input).get("make_current", True):
            return False
        current = await self.version(app.current_version_id)
        return current.created_at <= version.created_at

    async def _build_task(self, version: Version) -> Task | None:
        try:
            return await self._store.get_task(version.build_task_id or "", None)
        except NotFound:
            return None

    async def _point(self, app: App, version: Version) -> App:
        changed = replace(app, current_version_id=version.id, updated_at=self._clock.now())
        await self._store.update_app(changed)
        self._resolved.clear()
        return changed

    # ---- resolve ----------------------------------------------------------------------------------------------
    async def resolve(
        self, caller: Caller, *, ref: str | None = None, app_id: str | None = None, version_id: str | None = None
    ) -> tuple[App, Version]:
        """The app and the ready version that a call names, in one of three ways.

        Raises NotFound for what is not there or not the caller's to see, Conflict for a version that is not ready.
        """
        key = (caller.owner_id, caller.owner_name, ref or "", app_id or "", version_id or "")
        known = self._resolved.get(key)
        now = self._clock.monotonic()
        if known is not None and known[0] > now:
            return known[1], known[2]
        app, version = await self._resolve(caller, parse_ref(ref) if ref else None, app_id, version_id)
        _check_ready(app, version)
        if len(self._resolved) >= RESOLVE_SIZE:
            self._resolved.clear()
        self._resolved[key] = (now + RESOLVE_SECONDS, app, version)
        self._remember(version)
        return app, version

    async def _resolve(
        self, caller: Caller, ref: Ref | None, app_id: str | None, version_id: str | None
    ) -> tuple[App, Version]:
        if ref is not None:
            app = await self.by_name(caller, ref.namespace or caller.owner_name, ref.name)
            if (app_id or app.id) != app.id:
                raise Invalid.at("/app_id", "names another app than 'app' does")
        elif app_id is not None:
            app = await self.get(caller, app_id)
        else:
            app = await self.get(caller, (await self.version(version_id or "")).app_id)
        if version_id is not None:
            version = await self.version(version_id)
            if version.app_id != app.id:
                raise NotFound(f"{app.namespace}/{app.name} has no version {version_id!r}")
            return app, version
        if ref is not None and ref.version is not None:
            return app, await self._named(app, ref.version)
        if app.current_version_id is None:
            raise Conflict(
                f"{app.namespace}/{app.name} has no version that is ready; look at its build task", code="not_ready"
            )
        return app, await self.version(app.current_version_id)

    async def _named(self, app: App, name: str) -> Version:
        try:
            return await self._store.get_version(app_id=app.id, name=name)
        except NotFound:
            raise NotFound(f"{app.namespace}/{app.name} has no version {name!r}") from None

    async def version(self, version_id: str) -> Version:
        """A version by id, for rooms that have checked who asks. NotFound."""
        known = self._ready.get(version_id)
        if known is None:
            known = await self._store.get_version(id=version_id)
            self._remember(known)
        return known

    def known_version(self, version_id: str) -> Version | None:
        """A ready version that is in memory."""
        return self._ready.get(version_id)

    def _remember(self, version: Version) -> None:
        # Only ready versions never change.
        if version.status != "ready":
            return
        self._ready[version.id] = version
        self._ready.move_to_end(version.id)
        if len(self._ready) > VERSIONS_SIZE:
            self._ready.popitem(last=False)

    # ---- look up ----------------------------------------------------------------------------------------------
    async def get(self, caller: Caller, app_id: str) -> App:
        """An app that the caller may see. NotFound."""
        app = await self._store.get_app(id=app_id)
        if app.owner_id != caller.owner_id and app.visibility != "public":
            raise NotFound(f"no app {app_id!r}")
        return app

    async def by_name(self, caller: Caller, namespace: str, name: str) -> App:
        """The same by its name. NotFound."""
        missing = NotFound(f"no app {namespace}/{name}; see what there is with POST /apps/list")
        try:
            app = await self._store.get_app(namespace=namespace, name=name)
        except NotFound:
            raise missing from None
        if app.owner_id != caller.owner_id and app.visibility != "public":
            raise missing
        return app

    async def list_apps(self, caller: Caller, query: ListQuery) -> Page:
        """The caller's apps and every public one."""
        return await self._store.list_apps(caller.owner_id, query)

    async def list_versions(self, caller: Caller, app_id: str, query: ListQuery) -> Page:
        """The versions of an app, newest first. NotFound."""
        return await self._store.list_versions((await self.get(caller, app_id)).id, query)

    async def version_of(self, caller: Caller, app_id: str, version_id: str) -> Version:
        """A version of an app by its id, short id or label. NotFound."""
        app = await self.get(caller, app_id)
        if version_id.startswith("ver_"):
            version = await self._store.get_version(id=version_id)
            if version.app_id != app.id:
                raise NotFound(f"{app.namespace}/{app.name} has no version {version_id!r}")
            return version
        return await self._named(app, version_id)

    # ---- change -----------------------------------------------------------------------------------------------
    async def update(self, caller: Caller, app_id: str, change: AppChange) -> App:
        """Change what is said about an app and who may run it. Needs ``deploy``. NotFound for another owner's."""
        app = await self._own(caller, app_id)
        fields = {name: getattr(change, name) for name in AppChange.__slots__ if getattr(change, name) is not None}
        changed = replace(app, **fields, updated_at=self._clock.now())
        await self._store.update_app(changed)
        self._resolved.clear()
        return changed

    async def make_current(self, caller: Caller, app_id: str, version_id: str) -> App:
        """Let ``@latest`` mean this version. Conflict unless it is ready."""
        app = await self._own(caller, app_id)
        version = await self.version_of(caller, app_id, version_id)
        _check_ready(app, version)
        return await self._point(app, version)

    async def delete(self, caller: Caller, app_id: str) -> None:
        """Delete an app; calls that run already go on. NotFound for another owner's."""
        app = await self._own(caller, app_id)
        versions = await self._all_versions(app)
        if self.removal is not None:
            await self.removal.note(versions)
        await self._store.delete_app(app.id, caller.owner_id, self._clock.now())
        self._resolved.clear()
        for version in versions:
            self._ready.pop(version.id, None)
            await self._files.drop_package(version.package_file_id)
        if self.removal is not None:
            # A build that ended since the first look did not know yet that nobody wants its version.
            await self.removal.note([found for found in await self._all_versions(app) if found not in versions])
            self.removal.begin()

    async def has_label(self, owner_id: str, name: str, label: str) -> bool:
        """Whether *owner_id* has an app *name* with a version *label*, for rooms that keep things of versions."""
        try:
            owner = await self._store.owner(id=owner_id)
            app = await self._store.get_app(namespace=owner.name, name=name)
            await self._store.get_version(app_id=app.id, name=label)
        except NotFound:
            return False
        return True

    async def _all_versions(self, app: App) -> list[Version]:
        found: list[Version] = []
        cursor: str | None = None
        while True:
            page = await self._store.list_versions(app.id, ListQuery(limit=200, cursor=cursor))
            found.extend(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def _own(self, caller: Caller, app_id: str) -> App:
        caller.need("deploy")
        app = await self.get(caller, app_id)
        if app.owner_id != caller.owner_id:
            raise NotFound(f"no app {app_id!r} of yours")
        return app


def _check_ready(app: App, version: Version) -> None:
    if version.status == "ready":
        return
    name = f"{app.namespace}/{app.name}@{version.short_id}"
    if version.status == "building":
        raise Conflict(f"{name} is being built by the task {version.build_task_id}", code="not_ready")
    raise Conflict(f"{name} could not be built: {version.error}", code="build_failed")
