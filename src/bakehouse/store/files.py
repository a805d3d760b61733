"""Records of files, and which tasks read or wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from bakehouse.core.file import FileRecord, TaskFile
from bakehouse.store.base import ListQuery, Page
from bakehouse.store.connection import Connection
from bakehouse.store.lists import Listing, list_page
from bakehouse.store.room import SqlRoom, found
from bakehouse.store.tables import files, task_files

_F, _L = files.c, task_files.c
_BY_ID = select(files).where(_F.id == bindparam("value"))
_BY_CAPABILITY = select(files).where(_F.capability == bindparam("value"))


def _file_of(row: tuple[Any, ...]) -> FileRecord:
    fields: list[Any] = list(row)
    fields[6] = bool(row[6])
    return FileRecord(*fields)


_LISTING = Listing(
    files,
    fields=("id", "filename", "content_type", "size", "public", "category", "created_at", "path"),
    search=("id", "filename", "path"),
    make=_file_of,
)


class FileRoom(SqlRoom):
    """The part of the contract about files."""

    async def create_file(self, file: FileRecord) -> None:
        row = (
            file.id, file.owner_id, file.capability, file.filename, file.content_type, file.size, int(file.public),
            file.category, file.created_at, file.upload_expires_at, file.blob_key, file.sha256, file.path,
        )  # fmt: skip
        await self._change(lambda connection: connection.run(insert(files).values(row)))

    async def file_stored(self, file_id: str, blob_key: str, size: int, sha256: str, content_type: str) -> None:
        stored = (
            update(files)
            .where(_F.id == file_id)
            .values(blob_key=blob_key, size=size, sha256=sha256, content_type=content_type)
        )

        def store(connection: Connection) -> None:
            found((1,) if connection.run(stored) else None, f"file {file_id!r}")

        await self._change(store)

    async def get_file(self, *, id: str | None = None, capability: str | None = None) -> FileRecord:
        statement, value = (_BY_ID, id) if id is not None else (_BY_CAPABILITY, capability)
        row = await self._read_point(lambda connection: connection.one(statement, {"value": value}))
        # The capability is a secret: it does not stand in an error.
        return _file_of(found(row, f"file {id!r}" if id is not None else "such file"))

    async def list_files(self, owner_id: str, query: ListQuery) -> Page:
        return await self._read(lambda connection: list_page(connection, _LISTING, _F.owner_id == owner_id, query))

    async def delete_file(self, file_id: str, owner_id: str) -> FileRecord:
        def remove(connection: Connection) -> FileRecord:
            mine = select(files).where(_F.id == file_id, _F.owner_id == owner_id).with_for_update()
            record = _file_of(found(connection.one(mine), f"file {file_id!r}"))
            connection.run(delete(task_files).where(_L.file_id == file_id))
            connection.run(delete(files).where(_F.id == file_id))
            return record

        return await self._change(remove)

    async def link_task_files(self, links: Sequence[TaskFile]) -> None:
        rows = [(link.task_id, link.file_id, link.role, link.created_at) for link in links]
        if rows:
            statement = self._dialect.insert(task_files).values(rows).on_conflict_do_nothing()
            await self._change(lambda connection: connection.run(statement))

    async def task_files(self, task_id: str, role: str | None = None) -> list[tuple[TaskFile, FileRecord]]:
        query = select(task_files, files).join(files, _F.id == _L.file_id).where(_L.task_id == task_id)
        if role is not None:
            query = query.where(_L.role == role)
        rows = await self._read(lambda connection: connection.all(query.order_by(_L.created_at, _L.file_id, _L.role)))
        return [(TaskFile(*row[:4]), _file_of(row[4:])) for row in rows]

    async def stale_uploads(self, before: int, limit: int) -> list[FileRecord]:
        query = (
            select(files)
            .where(_F.blob_key.is_(None), _F.upload_expires_at < before)
            .order_by(_F.upload_expires_at)
            .limit(limit)
        )
        return [_file_of(row) for row in await self._read(lambda connection: connection.all(query))]

    async def old_files(self, before: int, limit: int) -> list[FileRecord]:
        # By id, which begins with the time: the table's own order, so that the oldest are found without another index.
        query = (
            select(files)
            .where(_F.created_at < before, _F.category != "package", _F.public == 0, _F.blob_key.is_not(None))
            .order_by(_F.id)
            .limit(limit)
        )
        return [_file_of(row) for row in await self._read(lambda connection: connection.all(query))]
