"""Apps and their versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import and_, bindparam, insert, or_, select, update

from bakehouse.core.app import App, Version
from bakehouse.core.errors import Conflict
from bakehouse.store.appcodec import app_of, app_row, version_of, version_row
from bakehouse.store.base import ListQuery, Page
from bakehouse.store.connection import Connection
from bakehouse.store.lists import Listing, list_page
from bakehouse.store.room import SqlRoom, found
from bakehouse.store.tables import apps, versions

_A, _V = apps.c, versions.c
_APP = select(apps).where(_A.id == bindparam("id"), _A.deleted_at.is_(None))
_APP_NAMED = select(apps).where(
    _A.namespace == bindparam("namespace"), _A.name == bindparam("name"), _A.deleted_at.is_(None)
)
_VERSION = select(versions).where(_V.id == bindparam("id"))
_VERSION_SHORT = select(versions).where(_V.app_id == bindparam("app_id"), _V.short_id == bindparam("name"))
_VERSION_LABEL = select(versions).where(_V.app_id == bindparam("app_id"), _V.label == bindparam("name"))

_APPS = Listing(
    apps,
    fields=("id", "owner_id", "namespace", "name", "visibility", "category", "title", "created_at", "updated_at"),
    search=("namespace", "name", "title", "description"),
    make=app_of,
)
_VERSIONS = Listing(
    versions,
    fields=("id", "short_id", "label", "digest", "status", "created_at"),
    search=("id", "short_id", "label"),
    make=version_of,
)


class AppRoom(SqlRoom):
    """The part of the contract about apps."""

    async def create_version(self, app: App, version: Version) -> tuple[App, Version]:
        return await self._change(lambda connection: _create(connection, app, version))

    async def finish_version(self, version: Version, *, make_current: bool) -> None:
        row = version_row(version)
        outcome = {
            name: row[name]
            for name in ("status", "error", "functions", "setup_schema", "env_key", "default_function", "manifest")
        }

        def finish(connection: Connection) -> None:
            stored = update(versions).where(_V.id == version.id).values(outcome)
            found((1,) if connection.run(stored) else None, f"version {version.id!r}")
            if make_current:
                changed = {"current_version_id": version.id, "updated_at": self._clock.now()}
                connection.run(update(apps).where(_A.id == version.app_id).values(changed))

        await self._change(finish)

    async def update_app(self, app: App) -> None:
        row = app_row(app)
        changed = update(apps).where(_A.id == app.id, _A.deleted_at.is_(None)).values(row)

        def change(connection: Connection) -> None:
            found((1,) if connection.run(changed) else None, f"app {app.id!r}")

        await self._change(change)

    async def delete_app(self, app_id: str, owner_id: str, at: int) -> None:
        mine = (_A.id == app_id, _A.owner_id == owner_id, _A.deleted_at.is_(None))
        gone = update(apps).where(*mine).values(deleted_at=at, updated_at=at)

        def remove(connection: Connection) -> None:
            found((1,) if connection.run(gone) else None, f"app {app_id!r}")

        await self._change(remove)

    async def get_app(self, *, id: str | None = None, namespace: str | None = None, name: str | None = None) -> App:
        statement, what = (_APP, id) if id is not None else (_APP_NAMED, f"{namespace}/{name}")
        params = {"id": id, "namespace": namespace, "name": name}
        row = await self._read_point(lambda connection: connection.one(statement, params))
        return app_of(found(row, f"app {what!r}"))

    async def get_version(
        self, *, id: str | None = None, app_id: str | None = None, name: str | None = None
    ) -> Version:
        params = {"id": id, "app_id": app_id, "name": name}

        def look(connection: Connection) -> tuple[Any, ...] | None:
            if id is not None:
                return connection.one(_VERSION, params)
            return connection.one(_VERSION_SHORT, params) or connection.one(_VERSION_LABEL, params)

        return version_of(found(await self._read_point(look), f"version {id or name!r}"))

    async def list_apps(self, owner_id: str, query: ListQuery) -> Page:
        scope = and_(_A.deleted_at.is_(None), or_(_A.owner_id == owner_id, _A.visibility == "public"))
        return await self._read(lambda connection: list_page(connection, _APPS, scope, query))

    async def list_versions(self, app_id: str, query: ListQuery) -> Page:
        return await self._read(lambda connection: list_page(connection, _VERSIONS, _V.app_id == app_id, query))

    async def versions_building(self) -> list[Version]:
        query = select(versions).where(_V.status == "building").order_by(_V.id)
        return [version_of(row) for row in await self._read(lambda connection: connection.all(query))]


# ---- deploying ------------------------------------------------------------------------------------------------


def _create(connection: Connection, app: App, version: Version) -> tuple[App, Version]:
    app = _ensure_app(connection, app)
    version = replace(version, app_id=app.id)
    _check_label(connection, version)
    same = select(versions).where(_V.app_id == app.id, _V.digest == version.digest)
    row = connection.one(same)
    if row is not None:
        return app, _reuse(connection, version_of(row), version)
    version = replace(version, short_id=_free_short_id(connection, version))
    connection.run(insert(versions).values(version_row(version)))
    return app, version


def _ensure_app(connection: Connection, app: App) -> App:
    """The app of this name with the new description, locked; *app* itself when there was none."""
    named = _APP_NAMED.with_for_update()
    row = connection.one(named.params(namespace=app.namespace, name=app.name))
    if row is None:
        connection.run(insert(apps).values(app_row(app)))
        return app
    known = app_of(row)
    if known.owner_id != app.owner_id:
        raise Conflict(f"the app {app.namespace}/{app.name} belongs to somebody else")
    changed = {
        name: getattr(app, name) for name in ("title", "description", "category", "metadata", "updated_at")
    }  # fmt: skip
    known = replace(known, **changed)
    connection.run(update(apps).where(_A.id == known.id).values(app_row(known)))
    return known


def _check_label(connection: Connection, version: Version) -> None:
    if version.label is None:
        return
    others = (_V.app_id == version.app_id, _V.label == version.label, _V.digest != version.digest)
    # What could not be built was never anything: whoever mends it need not raise its version.
    connection.run(update(versions).where(*others, _V.status == "failed").values(label=None))
    row = connection.one(select(_V.short_id).where(*others))
    if row is not None:
        raise Conflict(
            f"the label {version.label!r} names other content ({row[0]}); choose a new one", code="label_taken"
        )


def _reuse(connection: Connection, known: Version, new: Version) -> Version:
    """The version that has this content already; a failed one is built again from the new package."""
    if known.status == "failed":
        known = replace(new, id=known.id, short_id=known.short_id, status="building")
    elif new.label is not None:
        known = replace(known, label=new.label)
    connection.run(update(versions).where(_V.id == known.id).values(version_row(known)))
    return known


def _free_short_id(connection: Connection, version: Version) -> str:
    """The version's short id, made longer from its id until no other version of the app has it."""
    short = version.short_id
    while connection.one(select(_V.id).where(_V.app_id == version.app_id, _V.short_id == short)):
        short = version.id[-(len(short) + 2) :]
    return short
