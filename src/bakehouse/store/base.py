"""The contract of the durable store.

Every method that changes something returns only after its transaction is durable (``synchronous=FULL`` on SQLite,
``synchronous_commit=on`` on PostgreSQL). Waiting changes are committed together (group commit), so many small calls
are cheap; a call that fails never takes its neighbours with it. Reads see every write that has returned.
Methods raise ``bakehouse.core.errors`` (NotFound, Conflict) and nothing of a driver's; a lost database is Unavailable.

``owner_id`` arguments scope a look-up: another owner's row is NotFound. ``None`` as owner is the server itself.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bakehouse.core.app import App, Version
from bakehouse.core.file import FileRecord, TaskFile
from bakehouse.core.identity import Caller, Key, Owner, User
from bakehouse.core.session import Session
from bakehouse.core.task import Event, InboxItem, QueuedTask, Task, TaskStatus, TaskWrite


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, newest first. Cursors are opaque ids of the row to go on after."""

    items: list[Any]
    next_cursor: str | None = None
    prev_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """``field operator value``: eq, neq, in, not_in, gt, gte, lt, lte, like, ilike, contains, is_null, is_not_null."""

    field: str
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list asks for. Unknown fields raise Invalid with the path of the filter."""

    limit: int = 50
    cursor: str | None = None
    direction: str = "next"
    search: str | None = None
    filters: tuple[Filter, ...] = ()
    sort: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CancelResult:
    """What a cancel found: the task as it is now, and whether it was cancelled right here (it had no holder)."""

    task: Task
    cancelled_now: bool


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A webhook that must be delivered. ``payload`` None means: render the task when sending."""

    id: str
    task_id: str
    owner_id: str
    url: str
    tries: int
    next_at: int


class Store(ABC):
    """See the module's text for what holds of every method."""

    # ---- life -------------------------------------------------------------------------------------------------
    @abstractmethod
    async def open(self) -> None:
        """Connect, check the schema version (newer than this code: raise Conflict), start the writer."""

    @abstractmethod
    async def close(self) -> None:
        """Commit what waits, stop the writer, close connections. May be repeated."""

    @abstractmethod
    async def check_integrity(self) -> list[str]:
        """What is wrong in here, one line each; [] is healthy. For tests and ``bakehouse doctor``.

        Checks: seqs of each task are 1..last_seq without gap; exactly one terminal status event per terminal task and
        none elsewhere; the row's status equals its last status event; every move legal; attempts of events never
        decrease.
        """

    # ---- tasks ------------------------------------------------------------------------------------------------
    @abstractmethod
    async def accept(self, task: Task, events: Sequence[Event], files: Sequence[TaskFile] = ()) -> Task | None:
        """Insert a new task with its first events. With ``lease_holder`` set (attempt 1, events up to SCHEDULED) it is
        accepted and claimed in one transaction. None: inserted. A Task: ``(owner_id, idempotency_key)`` exists
        already and this is the earlier task (nothing was written)."""

    @abstractmethod
    async def claim(self, task_ids: Sequence[str], holder: str) -> list[Task]:
        """Claim those of *task_ids* that are still QUEUED, not cancelled, and due: attempt+1, SCHEDULED event, lease.
        Returns the rows as claimed (missing ones were taken or ended). Safe against other claimers."""

    @abstractmethod
    def write(self, write: TaskWrite, *, lazy: bool = False) -> asyncio.Future[bool]:
        """Hand over one attempt's write; the future says False when it is stale and nothing was written. A plain
        function with a future, not a coroutine: dispatch attaches a callback and needs no asyncio task per write.
        ``lazy``: may wait up to 5 ms for company before a commit starts (it never delays others).
        Writes of one task apply in call order, and only where the row's last_seq is the one before the first event's
        seq (else stale: no gaps, no doubles). Terminal writes set finished_at, clear snapshot and lease; ``deliver``
        inserts a webhook delivery."""

    @abstractmethod
    async def save_snapshots(self, snapshots: Sequence[tuple[str, int, str]]) -> None:
        """Replace live snapshots, ``(task_id, attempt, json)``; stale ones are ignored. Lazy, like a lazy write."""

    @abstractmethod
    async def request_cancel(self, task_id: str, owner_id: str | None, at: int) -> list[CancelResult]:
        """Cancel a task and everything below it (parent_id). A task without holder becomes CANCELLED here (event
        included, webhook too); one with a holder gets cancel_requested_at; a terminal one is left alone.
        First item: the task itself."""

    @abstractmethod
    async def cancel_requests(self, holder: str) -> list[str]:
        """Ids of tasks held by *holder* whose cancel was requested and that are not terminal or CANCELLING yet."""

    @abstractmethod
    async def get_task(self, task_id: str, owner_id: str | None) -> Task: ...

    @abstractmethod
    async def list_tasks(self, owner_id: str, query: ListQuery) -> Page: ...

    @abstractmethod
    async def delete_task(self, task_id: str, owner_id: str) -> None:
        """Delete a task with its events, inbox and file links; Conflict ``invalid_transition`` until it is terminal."""

    @abstractmethod
    async def events(self, task_id: str, after: int = 0, limit: int = 1000, kind: str | None = None) -> list[Event]:
        """Durable events with seq > *after*, in order. Scoping is the caller's business (it has read the task)."""

    @abstractmethod
    async def queued(self, now: int, limit: int) -> list[QueuedTask]:
        """Waiting tasks that are due (run_at), oldest first, at most *limit* / number of owners fairly per owner."""

    @abstractmethod
    async def next_due(self, now: int) -> int | None:
        """The earliest future run_at among waiting tasks."""

    @abstractmethod
    async def count_queued(self, owner_id: str | None = None) -> int: ...

    @abstractmethod
    async def task_counts(self) -> dict[TaskStatus, int]:
        """Number of tasks by state (for metrics)."""

    # ---- leases -----------------------------------------------------------------------------------------------
    @abstractmethod
    async def heartbeat(self, holder: str, address: str, seconds: float) -> bool:
        """Register or renew *holder* until database-now + seconds. False: it had expired (its tasks may be taken)."""

    @abstractmethod
    async def holder_address(self, holder: str) -> str | None:
        """Where a live holder can be reached; None when expired or unknown."""

    @abstractmethod
    async def orphans(self, limit: int, *, sole: str | None = None) -> list[Task]:
        """Non-terminal tasks whose holder has expired or is unknown (RECEIVED without holder too).
        ``sole``: this holder is the only live one by construction (data directory lock): all else is orphaned."""

    @abstractmethod
    async def held(self, holder: str) -> list[tuple[str, int]]:
        """``(task id, attempt)`` of everything unfinished that *holder* holds."""

    @abstractmethod
    async def retire(self, holder: str) -> None:
        """Forget a holder that has drained."""

    # ---- inbox ------------------------------------------------------------------------------------------------
    @abstractmethod
    async def put_inbox(self, task_id: str, owner_id: str, kind: str, data: str, at: int) -> InboxItem:
        """Append; Conflict when the task is terminal."""

    @abstractmethod
    async def inbox(self, task_id: str, after: int = 0) -> list[InboxItem]: ...

    # ---- webhooks ---------------------------------------------------------------------------------------------
    @abstractmethod
    async def due_webhooks(self, now: int, limit: int) -> list[WebhookDelivery]:
        """Deliveries whose next_at has come; each is hidden from other callers for 60 s by the same call."""

    @abstractmethod
    async def webhook_done(self, delivery_id: str) -> None: ...

    @abstractmethod
    async def webhook_retry(self, delivery_id: str, next_at: int, error: str) -> None:
        """Count a try and schedule the next one; ``next_at`` 0 gives up (kept with its error)."""

    # ---- identity ---------------------------------------------------------------------------------------------
    @abstractmethod
    async def ensure_owner(self, name: str, at: int) -> Owner:
        """The owner called *name*, made if missing (reserved namespaces included: the caller checks)."""

    @abstractmethod
    async def ensure_user(self, owner_id: str, name: str, at: int) -> User: ...

    @abstractmethod
    async def owners(self) -> list[Owner]:
        """All of them, by name."""

    @abstractmethod
    async def owner(self, *, id: str | None = None, name: str | None = None) -> Owner: ...

    @abstractmethod
    async def create_key(self, key: Key) -> None: ...

    @abstractmethod
    async def caller_for(self, key_hash: str, now: int) -> Caller | None:
        """Who the key with this SHA-256 is, unless revoked or expired."""

    @abstractmethod
    async def list_keys(self, owner_id: str) -> list[Key]: ...

    @abstractmethod
    async def revoke_key(self, key_id: str, owner_id: str, at: int) -> None: ...

    @abstractmethod
    async def has_keys(self) -> bool: ...

    # ---- apps -------------------------------------------------------------------------------------------------
    @abstractmethod
    async def create_version(self, app: App, version: Version) -> tuple[App, Version]:
        """Insert *version* (status building), and *app* unless (owner, name) exists (its description etc. are updated).
        The same digest under the same app returns the existing version (a failed one is reset to building, replaced).
        A label that names other content: Conflict, unless that failed: then the label is this one's. short_id
        collisions get a longer short id."""

    @abstractmethod
    async def finish_version(self, version: Version, *, make_current: bool) -> None:
        """Store a build's outcome: status, error, functions, schemas, env_key, default_function, manifest."""

    @abstractmethod
    async def update_app(self, app: App) -> None: ...

    @abstractmethod
    async def delete_app(self, app_id: str, owner_id: str, at: int) -> None: ...

    @abstractmethod
    async def get_app(self, *, id: str | None = None, namespace: str | None = None, name: str | None = None) -> App:
        """By id or by (namespace, name), deleted ones excluded. Visibility is the caller's business."""

    @abstractmethod
    async def get_version(
        self, *, id: str | None = None, app_id: str | None = None, name: str | None = None
    ) -> Version:
        """By id, or by app and *name*: the short id first, then the label."""

    @abstractmethod
    async def list_apps(self, owner_id: str, query: ListQuery) -> Page:
        """The owner's apps and every public one."""

    @abstractmethod
    async def list_versions(self, app_id: str, query: ListQuery) -> Page: ...

    @abstractmethod
    async def versions_building(self) -> list[Version]:
        """Versions still ``building`` (for recovery)."""

    # ---- files ------------------------------------------------------------------------------------------------
    @abstractmethod
    async def create_file(self, file: FileRecord) -> None: ...

    @abstractmethod
    async def file_stored(self, file_id: str, blob_key: str, size: int, sha256: str, content_type: str) -> None: ...

    @abstractmethod
    async def get_file(self, *, id: str | None = None, capability: str | None = None) -> FileRecord: ...

    @abstractmethod
    async def list_files(self, owner_id: str, query: ListQuery) -> Page: ...

    @abstractmethod
    async def delete_file(self, file_id: str, owner_id: str) -> FileRecord:
        """Delete the record and its task links; the caller deletes the blob after it returned."""

    @abstractmethod
    async def link_task_files(self, links: Sequence[TaskFile]) -> None: ...

    @abstractmethod
    async def task_files(self, task_id: str, role: str | None = None) -> list[tuple[TaskFile, FileRecord]]: ...

    @abstractmethod
    async def stale_uploads(self, before: int, limit: int) -> list[FileRecord]:
        """Records whose upload expired before *before* and whose bytes never came."""

    @abstractmethod
    async def old_files(self, before: int, limit: int) -> list[FileRecord]:
        """Stored files from before *before*, oldest first; packages of apps and public files are not among them."""

    # ---- sessions ---------------------------------------------------------------------------------------------
    @abstractmethod
    async def create_session(self, session: Session) -> None: ...

    @abstractmethod
    async def get_session(self, session_id: str, owner_id: str | None) -> Session: ...

    @abstractmethod
    async def list_sessions(self, owner_id: str) -> list[Session]: ...

    @abstractmethod
    async def touch_session(self, session_id: str, at: int, *, called: bool) -> Session:
        """Restart the idle clock (expires_at = at + idle_timeout); ``called`` counts a call. Ended ones: Gone."""

    @abstractmethod
    async def end_session(self, session_id: str, at: int, status: str, reason: str) -> None:
        """``status`` ended or expired; an ended one stays as it is."""

    @abstractmethod
    async def expired_sessions(self, now: int) -> list[Session]:
        """Active sessions whose expires_at has passed and that have no unfinished task."""

    # ---- secrets ----------------------------------------------------------------------------------------------
    @abstractmethod
    async def put_secret(self, owner_id: str, key: str, ciphertext: bytes, description: str, at: int) -> None: ...

    @abstractmethod
    async def secrets(self, owner_id: str) -> list[tuple[str, bytes, str, int]]:
        """``(key, ciphertext, description, updated_at)`` of every secret, by key."""

    @abstractmethod
    async def delete_secret(self, owner_id: str, key: str) -> None: ...

    @abstractmethod
    async def secrets_revision(self, owner_id: str) -> int:
        """A number that grows with every change of the owner's secrets."""

    # ---- retention --------------------------------------------------------------------------------------------
    @abstractmethod
    async def purge_tasks(self, finished_before: int, limit: int) -> int:
        """Delete old terminal tasks with what hangs on them; how many."""
