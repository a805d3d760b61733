"""Tasks: run, look up, cancel, wait. What is refused is refused here, before anything is stored."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from bakehouse.core.app import INFERLET, App, Version
from bakehouse.core.clock import Clock
from bakehouse.core.errors import Conflict, Invalid, NotConfigured, NotFound, RequirementsNotMet, TooMany, Unavailable
from bakehouse.core.file import FileRecord, TaskFile
from bakehouse.core.identity import Caller
from bakehouse.core.ids import new_id
from bakehouse.core.refs import parse_ref
from bakehouse.core.task import Event, InboxItem, Task, TaskStatus
from bakehouse.live.base import Feed, Live
from bakehouse.service.inputs import InputChecker, find_uris, plain_input
from bakehouse.store.base import ListQuery, Page, Store


class Desk(Protocol):
    """Where accepted tasks are handed over: the dispatcher of this server."""

    draining: bool
    holder: str

    def reserve(self, kind: str, lane: str, owner_id: str) -> str | None: ...
    def release(self, kind: str, lane: str, owner_id: str) -> None: ...
    def accepted(self, task: Task) -> None: ...
    def start(self, task: Task) -> None: ...
    def cancel_requested(self, task_id: str) -> None: ...
    def inbox_filled(self, task_id: str) -> None: ...
    def cancelled(self, task: Task) -> None: ...
    def waiting(self, owner_id: str | None = None) -> int: ...


class AppsPart(Protocol):
    """What running needs of apps."""

    async def resolve(
        self, caller: Caller, *, ref: str | None, app_id: str | None, version_id: str | None
    ) -> tuple[App, Version]: ...


class SecretsPart(Protocol):
    """What running needs of secrets."""

    async def missing(self, owner_id: str, version: Version) -> list[dict[str, Any]]: ...
    async def revision(self, owner_id: str) -> int: ...


class SessionsPart(Protocol):
    """What running needs of sessions."""

    async def open(self, caller: Caller, app: App, version: Version, idle_timeout: int | None) -> str: ...
    async def check(self, caller: Caller, session_id: str, app: App, version: Version | None) -> Version: ...
    async def called(self, session_id: str, task_id: str) -> None: ...
    async def lost(self, session_id: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A call of an app, as a dialect has read it. JSON values; ``timeout`` seconds, ``run_at`` microseconds UTC."""

    input: dict[str, Any]
    app: str | None = None
    app_id: str | None = None
    version_id: str | None = None
    function: str | None = None
    setup: dict[str, Any] | None = None
    session: str | None = None
    session_timeout: int | None = None
    webhook: str | None = None
    run_at: int | None = None
    timeout: float | None = None
    idempotency_key: str | None = None
    recorded: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many tasks may wait, in all and per owner."""

    total: int
    per_owner: int


class Tasks:
    """See the module's text."""

    def __init__(
        self,
        *,
        store: Store,
        live: Live,
        clock: Clock,
        apps: AppsPart,
        secrets: SecretsPart,
        sessions: SessionsPart,
        limits: QueueLimits,
        check_resources: Callable[[Version], None],
        check_webhook: Callable[[str], None],
        file_by_uri: Callable[[str], Awaitable[FileRecord | None]],
        default_timeout: float | None,
    ) -> None:
        self._store, self._live, self._clock = store, live, clock
        self._apps, self._secrets, self._sessions = apps, secrets, sessions
        self._limits, self._default_timeout = limits, default_timeout
        self._check_resources, self._check_webhook, self._file_by_uri = check_resources, check_webhook, file_by_uri
        self._inputs = InputChecker()
        self.desk: Desk | None = None  # handed over by wiring: the dispatcher needs this service first

    # ---- run ------------------------------------------------------------------------------------------------

    async def run(self, caller: Caller, request: RunRequest) -> Task:
        """Accept a call. Returns the task, durable and on its way (an earlier one for a repeated idempotency key).

        Raises Invalid, NotFound, RequirementsNotMet, Gone (sessions), TooMany, Unavailable (draining).
        """
        caller.need("run")
        app, version = await self._target(caller, request)
        function = self._function(version, request)
        value = plain_input(request.input)
        self._inputs.check(version, function, value)
        self._inputs.check_setup(version, request.setup)
        self._check_resources(version)
        if request.webhook:
            self._check_webhook(request.webhook)
        self._check_queue(caller.owner_id)
        await self._check_secrets(caller, version)
        lane, session_id = await self._lane(caller, app, version, request)
        task = self._task(caller, app, version, request, function, orjson.dumps(value).decode(), lane, session_id)
        links = await self._links(caller, task)
        accepted = await self._accept(task, links)
        if session_id is None:
            return accepted
        if accepted is task:
            await self._sessions.called(session_id, accepted.id)
        elif request.session == "new":  # the earlier request has a session already; nobody would call this one
            await self._sessions.lost(session_id, "its call was a repeat of an earlier one")
        return accepted

    async def submit(
        self,
        caller: Caller,
        *,
        kind: str,
        lane: str,
        function: str,
        input: dict[str, Any],
        retries: int = 1,
        task_id: str | None = None,
        version: Version | None = None,
        app_ref: str | None = None,
    ) -> Task:
        """Accept a task of the platform's own, such as a build of *version*. *task_id* where it was told before."""
        now = self._clock.now()
        task_id = task_id or new_id("task")
        task = Task(
            task_id, kind, caller.owner_id, caller.user_id, task_id, TaskStatus.QUEUED, lane, function,
            orjson.dumps(input).decode(), now, now, retries=retries, last_seq=2, app_ref=app_ref,
            app_id=version.app_id if version else None, version_id=version.id if version else None,
        )  # fmt: skip
        return await self._accept(task, [])

    async def _target(self, caller: Caller, request: RunRequest) -> tuple[App, Version]:
        app, version = await self._apps.resolve(
            caller, ref=request.app, app_id=request.app_id, version_id=request.version_id
        )
        if request.session and request.session != "new":
            named = bool(request.version_id or (request.app and "@" in request.app and "@latest" not in request.app))
            version = await self._sessions.check(caller, request.session, app, version if named else None)
        return app, version

    def _function(self, version: Version, request: RunRequest) -> str:
        in_ref = parse_ref(request.app).function if request.app else None
        if in_ref and request.function and in_ref != request.function:
            raise Invalid.at("/function", f"{request.function!r} differs from {in_ref!r} in the app reference")
        name = request.function or in_ref or version.default_function
        if version.function(name) is None:
            known = ", ".join(f.name for f in version.functions)
            raise NotFound(f"the app has no function {name!r}; it has: {known}")
        return name

    def _check_queue(self, owner_id: str) -> None:
        desk = self._desk()
        if desk.draining:
            raise Unavailable("this server is stopping; try again", retry_after=2)
        if desk.waiting() >= self._limits.total:
            raise TooMany(f"the queue is full ({self._limits.total} tasks wait); try again later", code="queue_full")
        if desk.waiting() >= self._limits.per_owner and desk.waiting(owner_id) >= self._limits.per_owner:
            raise TooMany(f"{self._limits.per_owner} of your tasks wait already; try again later", code="queue_full")

    async def _check_secrets(self, caller: Caller, version: Version) -> None:
        if not version.manifest.secrets:
            return
        missing = await self._secrets.missing(caller.owner_id, version)
        if missing:
            raise RequirementsNotMet(missing[0]["message"], fields=missing)

    async def _lane(self, caller: Caller, app: App, version: Version, request: RunRequest) -> tuple[str, str | None]:
        """The warm key of decision 15, and the session whose instance the call must reach.

        An inferlet has no warm instance: all of an owner's stand in one line.
        """
        if version.kind == INFERLET:
            if request.session is not None:
                raise Invalid.at("/session", "an inferlet keeps no instance between calls; use contexts with names")
            return f"{INFERLET}/{caller.owner_id}", None
        shared = version.manifest.shared
        owner = "-" if shared else caller.owner_id
        revision = 0 if shared or not version.manifest.secrets else await self._secrets.revision(caller.owner_id)
        setup = setup_hash(request.setup)
        lane = f"app/{owner}/{version.id}/{setup}/{revision}/-"
        session_id = request.session
        if session_id is None:
            return lane, None
        if session_id == "new":
            session_id = await self._sessions.open(caller, app, version, request.session_timeout)
        return f"{lane}/session/{session_id}", session_id

    def _task(
        self,
        caller: Caller,
        app: App,
        version: Version,
        request: RunRequest,
        function: str,
        value: str,
        lane: str,
        session_id: str | None,
    ) -> Task:
        now = self._clock.now()
        task_id = new_id("task")
        options = {k: v for k, v in (("webhook", request.webhook), *(request.recorded or {}).items()) if v is not None}
        return Task(
            task_id, version.kind, caller.owner_id, caller.user_id, task_id, TaskStatus.QUEUED, lane, function, value,
            now, now, retries=version.manifest.retries,
            app_id=app.id,
            version_id=version.id,
            app_ref=f"{app.namespace}/{app.name}@{version.short_id}",
            setup=orjson.dumps(request.setup).decode() if request.setup else None,
            session_id=session_id,
            options=orjson.dumps(options).decode() if options else None,
            timeout=request.timeout or version.manifest.timeout or self._default_timeout,
            run_at=request.run_at,
            idempotency_key=request.idempotency_key,
            request_hash=_request_hash(request, value) if request.idempotency_key else None,
            last_seq=2,
        )  # fmt: skip

    async def _accept(self, task: Task, links: list[TaskFile]) -> Task:
        """Store the task with its first events; claimed at once when this server has a place for it."""
        desk = self._desk()
        now = task.created_at
        events = [Event(1, now, "status", TaskStatus.RECEIVED, 0), Event(2, now, "status", TaskStatus.QUEUED, 0)]
        due = task.run_at is None or task.run_at <= now
        holder = desk.reserve(task.kind, task.lane, task.owner_id) if due else None
        if holder is not None:
            task.lease_holder, task.attempt, task.status, task.last_seq = holder, 1, TaskStatus.SCHEDULED, 3
            events.append(Event(3, now, "status", TaskStatus.SCHEDULED, 1))
        try:
            earlier = await self._store.accept(task, events, links)
        except BaseException:
            if holder is not None:
                desk.release(task.kind, task.lane, task.owner_id)
            raise
        if earlier is not None:
            if holder is not None:
                desk.release(task.kind, task.lane, task.owner_id)
            return _same_request(earlier, task)
        feed = self._live.open(task)
        feed.commit(events, lambda event: [])
        if holder is not None:
            desk.start(task)
        else:
            desk.accepted(task)
        return task

    async def _links(self, caller: Caller, task: Task) -> list[TaskFile]:
        links = []
        for uri in find_uris(task.input):
            record = await self._file_by_uri(uri)
            if record is not None and record.owner_id == caller.owner_id:
                links.append(TaskFile(task.id, record.id, "input", task.created_at))
        return links

    def _desk(self) -> Desk:
        if self.desk is None:
            raise NotConfigured("this process takes no tasks")
        return self.desk

    # ---- look up --------------------------------------------------------------------------------------------

    async def get(self, caller: Caller, task_id: str) -> Task:
        """The task as it stands. Raises NotFound."""
        feed = self._live.latest(task_id)
        if feed is not None and not feed.remote:
            if feed.task.owner_id != caller.owner_id:
                raise NotFound(f"no task {task_id!r}")
            return feed.task
        return await self._store.get_task(task_id, caller.owner_id)

    def feed(self, task_id: str) -> Feed | None:
        """The live feed of a task that is active here."""
        return self._live.latest(task_id)

    async def wait(self, task: Task, seconds: float) -> Task:
        """*task* when it has ended, or as it stands after *seconds*."""
        feed = self._live.latest(task.id)
        if feed is None or task.status.terminal:
            return task
        feed.waiters += 1
        try:
            await asyncio.wait([feed.done], timeout=seconds)
        finally:
            feed.waiters -= 1
        return feed.task

    async def page(self, caller: Caller, query: ListQuery) -> Page:
        """The owner's tasks, newest first."""
        return await self._store.list_tasks(caller.owner_id, query)

    async def events(self, task: Task, after: int = 0, kind: str | None = None) -> list[Event]:
        """All durable events after *after* (of one kind)."""
        found: list[Event] = []
        while batch := await self._store.events(task.id, after, 1000, kind):
            found.extend(batch)
            after = batch[-1].seq
            if len(batch) < 1000:
                break
        return found

    async def log_lines(self, task: Task, feed: Feed | None = None) -> list[str]:
        """Every printable line of the task's log; from *feed*'s memory when it has them all."""
        kept = feed.since(0) if feed is not None and not feed.remote else None
        if kept is not None:
            return [text for update in kept if update.logs for text in update.logs]
        events = await self.events(task, kind="log")
        return [line["text"] for event in events for line in orjson.loads(event.data or "[]")]

    async def told(self, task: Task, feed: Feed | None = None) -> tuple[list[str], dict[str, Any] | None]:
        """The task's log lines, and what it sent its caller.

        An active *task* goes on while they are read; where it shows its end afterwards, they are read to the end too.
        """
        while True:
            before = task.last_seq
            sent = await self._sent(task)
            lines = await self.log_lines(task, feed)
            if task.last_seq == before or not task.status.terminal:
                return lines, sent

    async def _sent(self, task: Task) -> dict[str, Any] | None:
        """All that the task's current attempt sent to its caller; None for kinds of tasks that send nothing."""
        if task.kind != INFERLET:
            return None
        events = [event for event in await self.events(task, kind="sent") if event.attempt == task.attempt]
        return {"first": 0, "messages": [it for event in events for it in orjson.loads(event.data or "{}")["messages"]]}

    async def files(self, caller: Caller, task_id: str, role: str | None) -> list[tuple[TaskFile, FileRecord]]:
        """Files that the task read or wrote. Raises NotFound."""
        task = await self.get(caller, task_id)
        return await self._store.task_files(task.id, role)

    # ---- change ---------------------------------------------------------------------------------------------

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Cancel a task and all below it. A finished one stays as it is, and that is no error."""
        caller.need("run")
        results = await self._store.request_cancel(task_id, caller.owner_id, self._clock.now())
        desk = self._desk()
        for result in results:
            if result.cancelled_now:
                desk.cancelled(result.task)
            elif not result.task.status.terminal:
                desk.cancel_requested(result.task.id)
        return results[0].task

    async def check_deletable(self, caller: Caller, task_id: str) -> None:
        """Raise NotFound, or Conflict while the task has not ended."""
        task = await self.get(caller, task_id)
        if not task.status.terminal:
            raise Conflict(f"the task is {task.status.text}; cancel it first", code="invalid_transition")

    async def delete(self, caller: Caller, task_id: str) -> None:
        """Delete a finished task. Raises Conflict while it is not."""
        caller.need("run")
        await self._store.delete_task(task_id, caller.owner_id)

    async def put_inbox(self, caller: Caller, task_id: str, kind: str, data: Any) -> InboxItem:
        """Send a message to a task that has not ended: durable, ordered."""
        caller.need("run")
        task = await self.get(caller, task_id)
        desk = self._desk()
        if task.lease_holder not in (None, desk.holder):
            # It would lie there unread: only the server that runs a task hands its inbox over.
            where = await self._store.holder_address(task.lease_holder or "") or "another server"
            raise Conflict(f"this task runs on another server; send to {where}", code="wrong_server")
        item = await self._store.put_inbox(
            task_id, caller.owner_id, kind, orjson.dumps(data).decode(), self._clock.now()
        )
        desk.inbox_filled(task_id)
        return item


def setup_hash(setup: dict[str, Any] | None) -> str:
    """Sixteen hex digits that tell setup values apart; none and ``{}`` are the same."""
    if not setup:
        return "0"
    return hashlib.sha256(orjson.dumps(setup, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _request_hash(request: RunRequest, value: str) -> str:
    parts = [request.app, request.app_id, request.version_id, request.function, request.setup, request.session, value]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _same_request(earlier: Task, task: Task) -> Task:
    if earlier.request_hash != task.request_hash:
        raise Conflict("this Idempotency-Key was used for a different request", code="idempotency_conflict")
    return earlier
