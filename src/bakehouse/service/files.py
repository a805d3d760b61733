"""Files: what callers upload, what tasks read and leave behind, and who may fetch them.

A file has two secrets: a signed upload URL that expires, and a permanent capability in its URI that a worker or a
person can fetch without a key. Records hold neither URL; both are rendered from ``public_url``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import mimetypes
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from bakehouse.blobs.base import Blob, Blobs
from bakehouse.core.clock import SECOND, Clock
from bakehouse.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from bakehouse.core.executor import OutputFile
from bakehouse.core.file import FileRecord, TaskFile
from bakehouse.core.identity import Caller
from bakehouse.core.ids import new_id
from bakehouse.service.keyfile import ServerSecret
from bakehouse.store.base import Filter, ListQuery, Page, Store

_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:;[\x20-\x7e]{0,200})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_CAPABILITY = r"[A-Za-z0-9_-]{32}"
PACKAGE = "package"
"""The category of packages that versions keep for themselves."""
DEFAULT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What a caller says of a file before its bytes come; ``size`` in bytes."""

    filename: str | None = None
    content_type: str | None = None
    size: int | None = None
    public: bool = False
    path: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class FileSettings:
    """``max_upload`` bytes per file; ``upload_ttl`` seconds an upload URL lives."""

    public_url: str
    max_upload: int = 5 * 1024**3
    upload_ttl: int = 3600


class Files:
    """See the module's text."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, secret: ServerSecret, settings: FileSettings) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._key = secret.key("uploads")
        self._settings = settings
        self._base = settings.public_url.rstrip("/") + "/files/"
        self._ours = re.compile(re.escape(self._base) + f"c/({_CAPABILITY})(?:/|\\b)")
        self._finishing = asyncio.Lock()
        self._orphans: set[str] = set()

    # ---- uploads ----------------------------------------------------------------------------------------------
    async def create(self, caller: Caller, spec: FileSpec) -> FileRecord:
        """A record that waits for its bytes. Raises Invalid, and TooLarge for a declared size over the limit."""
        if spec.size is not None and spec.size > self._settings.max_upload:
            raise self._too_large()
        now = self._clock.now()
        name = clean_name(spec.filename or spec.path or "")
        record = FileRecord(
            id=new_id("file"),
            owner_id=caller.owner_id,
            capability=secrets.token_urlsafe(24),
            filename=name,
            content_type=content_type(spec.content_type, name),
            size=spec.size,
            public=spec.public,
            category=spec.category or "upload",
            created_at=now,
            upload_expires_at=now + self._settings.upload_ttl * SECOND,
            path=spec.path,
        )
        await self._store.create_file(record)
        return record

    def upload_url(self, record: FileRecord) -> str:
        """Where the bytes of *record* are to be PUT; needs no key."""
        expires = (record.upload_expires_at or 0) // SECOND
        return f"{self._base}upload/{record.id}?expires={expires}&signature={self._sign(record.id, expires)}"

    async def receive(self, file_id: str, expires: int, signature: str, chunks: AsyncIterable[bytes]) -> FileRecord:
        """Store the bytes of a file. The same bytes again succeed; others are a Conflict: a file never changes.

        Raises Forbidden for a wrong or expired signature, TooLarge, and Invalid when the declared size differs.
        """
        # As bytes: the comparison of texts refuses characters beyond ASCII with an error of its own.
        if not hmac.compare_digest(self._sign(file_id, expires).encode(), signature.encode()):
            raise Forbidden("this upload URL is not valid; ask for one with POST /files", code="forbidden")
        if expires * SECOND < self._clock.now():
            raise Forbidden("this upload URL has expired; ask for a new one with POST /files", code="forbidden")
        record = await self._store.get_file(id=file_id)
        # A key per upload: two uploads at once never mix, the first one to finish is the file.
        key = _blob_key(file_id)
        blob = await self._blobs.put(key, chunks, limit=self._settings.max_upload)
        stored = False
        try:
            if record.size is not None and record.blob_key is None and blob.size != record.size:
                raise Invalid.at("/size", f"{record.size} bytes were announced and {blob.size} came")
            async with self._finishing:
                record = await self._store.get_file(id=file_id)
                if record.blob_key is None:
                    await self._store.file_stored(file_id, key, blob.size, blob.sha256, record.content_type)
                    stored = True
            if not stored and record.sha256 != blob.sha256:
                raise Conflict("this file has its bytes already; create another file", code="already_exists")
        finally:
            if not stored:
                await self._blobs.delete(key)
        return await self._store.get_file(id=file_id)

    def _sign(self, file_id: str, expires: int) -> str:
        return hmac.new(self._key, f"{file_id}.{expires}".encode(), hashlib.sha256).hexdigest()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the file is larger than {self._settings.max_upload} bytes")

    # ---- reading ----------------------------------------------------------------------------------------------
    def url(self, record: FileRecord) -> str:
        """The file's permanent URI."""
        return f"{self._base}c/{record.capability}/{quote(record.filename)}"

    async def by_capability(self, capability: str) -> FileRecord:
        """The file behind a URI, once its bytes are there. NotFound."""
        if not re.fullmatch(_CAPABILITY, capability):
            raise NotFound("no such file")
        record = await self._store.get_file(capability=capability)
        if record.blob_key is None:
            raise NotFound("the file's bytes have not been uploaded")
        return record

    def content(self, record: FileRecord, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Bytes of a stored file, see ``Blobs.read``."""
        if record.blob_key is None:
            raise NotFound("the file's bytes have not been uploaded")
        return self._blobs.read(record.blob_key, start, length)

    async def local(self, record: FileRecord) -> Path:
        """A read-only path on this machine with the file's bytes. NotFound."""
        if record.blob_key is None:
            raise NotFound("the file's bytes have not been uploaded")
        return await self._blobs.local(record.blob_key)

    async def get(self, caller: Caller, file_id: str) -> FileRecord:
        """The caller's own file. NotFound."""
        record = await self._store.get_file(id=file_id)
        if record.owner_id != caller.owner_id:
            raise NotFound(f"no file {file_id!r}")
        return record

    async def list_files(self, caller: Caller, query: ListQuery) -> Page:
        """The caller's files, newest first, without the packages that versions of apps keep for themselves."""
        filters = (*query.filters, Filter("category", "neq", PACKAGE))
        return await self._store.list_files(caller.owner_id, replace(query, filters=filters))

    async def delete(self, caller: Caller, file_id: str) -> FileRecord:
        """Delete the file: its URI is dead at once. NotFound."""
        record = await self.get(caller, file_id)
        if record.category == PACKAGE:
            raise Conflict("this is the package of an app's version and goes with the app")
        await self._delete(record)
        return record

    async def _delete(self, record: FileRecord) -> None:
        # The record first: a file that is listed can be fetched.
        await self._store.delete_file(record.id, record.owner_id)
        if record.blob_key is not None:
            await self._blobs.delete(record.blob_key)

    # ---- packages ---------------------------------------------------------------------------------------------
    async def keep_package(self, record: FileRecord, file_id: str) -> None:
        """Keep a copy of an uploaded package as the file *file_id*, out of its owner's reach: environments and
        instances are made from it again whenever they are missing."""
        blob = await self._blobs.put_file(_blob_key(file_id), await self.local(record), limit=record.size or 0)
        copy = replace(
            record,
            id=file_id,
            capability=secrets.token_urlsafe(24),
            public=False,
            category=PACKAGE,
            created_at=self._clock.now(),
            upload_expires_at=None,
            blob_key=blob.key,
            path=None,
        )
        await self._store.create_file(copy)

    async def drop_package(self, file_id: str) -> None:
        """Delete the package of a version that is no longer needed. May be repeated."""
        with contextlib.suppress(NotFound):  # it was dropped before, or never kept
            await self._delete(await self._store.get_file(id=file_id))

    # ---- tasks ------------------------------------------------------------------------------------------------
    async def by_uri(self, uri: str) -> FileRecord | None:
        """The stored file whose URI this is; None for a URI of elsewhere or of a file that is gone."""
        found = self._ours.match(uri)
        if found is None:
            return None
        try:
            return await self.by_capability(found[1])
        except NotFound:
            return None  # a text may well hold the URI of a deleted file; fetching it is what fails then

    async def file_of(self, uri: str) -> str | None:
        """The id of the file whose URI this is, see ``by_uri``."""
        record = await self.by_uri(uri)
        return record.id if record else None

    async def store_output(self, owner_id: str, task_id: str, output: OutputFile) -> FileRecord:
        """Keep a file that a task left behind. Raises Invalid ``output_file``, TooLarge, Unavailable."""
        file_id = new_id("file")
        blob = await self._blobs.put_file(_blob_key(file_id), output.path, limit=self._settings.max_upload)
        record = self._output_record(file_id, owner_id, output, blob)
        await self._store.create_file(record)
        await self._store.link_task_files([TaskFile(task_id, file_id, "output", record.created_at)])
        return record

    def _output_record(self, file_id: str, owner_id: str, output: OutputFile, blob: Blob) -> FileRecord:
        name = clean_name(output.filename)
        return FileRecord(
            id=file_id,
            owner_id=owner_id,
            capability=secrets.token_urlsafe(24),
            filename=name,
            content_type=content_type(output.content_type, name, strict=False),
            size=blob.size,
            public=False,
            category="output",
            created_at=self._clock.now(),
            blob_key=blob.key,
            sha256=blob.sha256,
        )

    async def of_task(self, task_id: str, role: str | None = None) -> list[tuple[TaskFile, FileRecord]]:
        """The files that a task read and wrote. Scoping is the caller's business (it has read the task)."""
        return await self._store.task_files(task_id, role)

    # ---- upkeep -----------------------------------------------------------------------------------------------
    async def sweep(self) -> int:
        """Remove records whose upload expired and blobs that no record knows; how many went. To be called now and then.

        A blob without a record goes when it is seen a second time: the first time it may be about to get one.
        """
        count = 0
        for record in await self._store.stale_uploads(self._clock.now(), 1000):
            await self._clear(record)
            count += 1
        unknown = {key for key in await self._blobs.keys() if not await self._is_known(key)}
        for key in unknown & self._orphans:
            await self._blobs.delete(key)
            count += 1
        self._orphans = unknown - self._orphans
        return count

    async def expire(self, before: int) -> int:
        """Delete files from before *before* (microseconds); public ones and packages stay. How many went, at most 1000
        at a time."""
        old = await self._store.old_files(before, 1000)
        for record in old:
            await self._clear(record)
        return len(old)

    async def _clear(self, record: FileRecord) -> None:
        with contextlib.suppress(NotFound):  # another server's upkeep, or its owner, was faster
            await self._delete(record)

    async def _is_known(self, key: str) -> bool:
        try:
            return (await self._store.get_file(id=key.rpartition("_")[0])).blob_key == key
        except NotFound:
            return False


def _blob_key(file_id: str) -> str:
    return f"{file_id}_{secrets.token_hex(4)}"


def clean_name(name: str) -> str:
    """The last part of *name* without control characters, at most 255 bytes; ``file`` when nothing is left."""
    name = _CONTROL.sub("", name.replace("\\", "/").rsplit("/", 1)[-1]).strip().strip(".")
    while len(name.encode(errors="replace")) > 255:
        # The end is kept: it says the type.
        name = name[1:]
    return name or "file"


def content_type(declared: str | None, filename: str, *, strict: bool = True) -> str:
    """*declared*, else what *filename* suggests. Raises Invalid for something else than a media type when *strict*."""
    if declared:
        if _CONTENT_TYPE.fullmatch(declared):
            return declared
        if strict:
            raise Invalid.at("/content_type", f"{declared[:100]!r} is not a media type such as image/png")
    return mimetypes.guess_type(filename)[0] or DEFAULT_TYPE
