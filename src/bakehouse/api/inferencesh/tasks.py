"""Running apps and looking after tasks."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.api.common.body import Body, Text, read_body, refuse
from bakehouse.api.common.envelope import Message, reply
from bakehouse.api.common.lists import ListBody, page_data, read_list
from bakehouse.api.common.openapi import array_of, document, header, page_of, query
from bakehouse.api.common.services import services_of
from bakehouse.api.inferencesh import shapes
from bakehouse.api.inferencesh.stream import PY_LINE_LIMIT, StreamReply
from bakehouse.core.clock import rfc3339
from bakehouse.core.errors import Invalid
from bakehouse.service.tasks import RunRequest

router = APIRouter(tags=["tasks"])

MAX_WAIT_SECONDS = 600.0
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")


class RunBody(Body):
    """A call of an app. Name it by ``app`` (a reference) or by ``app_id`` or ``version_id``."""

    app: Text | None = Field(None, description="namespace/name, with @version and :function if wanted")
    app_id: Text | None = None
    version_id: Text | None = None
    input: dict[str, Any] | None = Field(None, description="Must fit the function's input schema.")
    setup: dict[str, Any] | None = Field(None, description="Different values get an instance of their own.")
    function: Text | None = None
    infra: Literal["private", "cloud", "private_first", "remote"] | None = Field(None, description="Recorded only.")
    workers: list[Text] | None = Field(None, description="Recorded only.")
    variant: Text | None = Field(None, description="Recorded only.")
    webhook: Text | None = Field(None, description="An http(s) URL that is told of the end.", max_length=2048)
    session: Text | None = Field(None, description="'new', or the id of a session")
    session_timeout: int | None = Field(None, ge=1, le=3600, description="Idle seconds; only with session 'new'.")
    run_at: datetime | None = Field(None, description="Not before this time (RFC 3339).", strict=False)
    timeout: float | None = Field(None, gt=0, le=7 * 86400, description="Seconds of running before it is stopped.")
    metadata: dict[str, Any] | None = Field(None, description="Recorded with the task.")
    wait: bool | None = Field(None, description="The same as the header Prefer: wait=30.")
    stream: bool | None = Field(None, description="Accepted when false: open the task's stream instead.")


class TaskShape(BaseModel):
    """A task. ``status`` is a number (COMPLETED is 10), ``status_text`` its name."""

    model_config = ConfigDict(extra="allow")
    id: str
    status: int
    status_text: str
    created_at: str
    updated_at: str
    input: Any
    output: Any
    error: str | None
    logs: list[str]
    sent: list[Any]
    seq: int
    attempt: int
    session_id: str | None


class StatusShape(BaseModel):
    """A task's state."""

    id: str
    status: int
    status_text: str
    updated_at: str


class InboxBody(Body):
    """A message to a running task."""

    kind: Text = Field("message", max_length=64)
    content: Any = None


class CancelBody(Body):
    """Accepted for clients that send it."""

    force: bool | None = None
    timeout: float | None = None


_PREFER = header("prefer", "wait=N: answer with the finished task if it ends within N seconds")
_IDEMPOTENCY = header("idempotency-key", "A repeated request with the same key is answered with the first task")
_ROLE = query("role", "input or output", {"type": "string", "enum": ["input", "output"]})


@router.post(
    "/apps/run",
    **document(
        "runApp", "Run an app", data=TaskShape, body=RunBody, body_required=True,
        errors=(403, 404, 409, 410, 412, 429, 503), parameters=[_PREFER, _IDEMPOTENCY],
    ),
)  # fmt: skip
async def run(request: Request) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, RunBody)
    tasks = services_of(request).tasks
    task = await tasks.run(who, _run_request(request, body))
    seconds = _wait_seconds(request, body)
    feed = tasks.feed(task.id)
    if seconds:
        task = await tasks.wait(task, seconds)
    logs, sent = await tasks.told(task, feed) if task.last_seq > 3 else ([], None)
    return _task_reply(request, task, logs, messages, feed, sent)


def _run_request(request: Request, body: RunBody) -> RunRequest:
    if body.stream:
        raise refuse("/stream", "a stream in the answer (open GET /tasks/{id}/stream)")
    if not (body.app or body.app_id or body.version_id):
        raise Invalid.at("/app", "name the app to run, such as namespace/name")
    if body.session_timeout is not None and body.session != "new":
        raise Invalid.at("/session_timeout", "only together with session 'new'")
    if body.run_at is not None and body.run_at.tzinfo is None:
        raise Invalid.at("/run_at", "needs a time zone, such as Z at the end")
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 255:
        raise Invalid.at("/headers/idempotency-key", "must be 1 to 255 characters")
    recorded = {"infra": body.infra, "workers": body.workers, "variant": body.variant, "metadata": body.metadata}
    return RunRequest(
        input=body.input or {},
        app=body.app,
        app_id=body.app_id,
        version_id=body.version_id,
        function=body.function,
        setup=body.setup,
        session=body.session,
        session_timeout=body.session_timeout,
        webhook=body.webhook,
        run_at=_micros(body.run_at),
        timeout=body.timeout,
        idempotency_key=key,
        recorded=recorded,
    )


def _micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    try:
        return int(moment.timestamp() * 1_000_000)
    except (OverflowError, ValueError) as error:
        raise Invalid.at("/run_at", "is outside the years that can be told") from error


def _wait_seconds(request: Request, body: RunBody) -> float:
    prefer = request.headers.get("prefer")
    found = _WAIT.search(prefer) if prefer else None
    if found:
        return min(float(found[1]), MAX_WAIT_SECONDS)
    return 30.0 if body.wait else 0.0


def _task_reply(
    request: Request, task: Any, logs: list[str], messages: list[Message], feed: Any, sent: Any = None
) -> Response:
    live = feed is not None and not task.status.terminal
    shape = shapes.task_shape(
        task, logs=logs, progress=feed.progress if live else None, partial=feed.partial if live else None, sent=sent
    )
    return reply(request, shape, messages=messages)


@router.get("/tasks/{task_id}", **document("getTask", "One task, whole", data=TaskShape, errors=(404,)))
async def get_task(request: Request, task_id: str) -> Response:
    tasks = services_of(request).tasks
    task = await tasks.get(await caller(request), task_id)
    feed = tasks.feed(task_id)
    logs, sent = await tasks.told(task, feed)
    return _task_reply(request, task, logs, [], feed, sent)


@router.get("/tasks/{task_id}/status", **document("getTaskStatus", "A task's state", data=StatusShape, errors=(404,)))
async def get_status(request: Request, task_id: str) -> Response:
    task = await services_of(request).tasks.get(await caller(request), task_id)
    return reply(request, shapes.status_shape(task))


_STREAM_CONTENT = {
    "text/event-stream": {"schema": {"description": "Server-sent events; the data of each is a task"}},
    "application/x-ndjson": {"schema": {"type": "string"}},
}


@router.get(
    "/tasks/{task_id}/stream",
    **document(
        "streamTask", "Follow a task to its end", content=_STREAM_CONTENT, errors=(400, 404),
        empty={204: "The task is over and the reader has seen it all"},
        parameters=[
            query("after", "Go on after this seq", {"type": "integer", "minimum": 0}),
            query("access_token", "The key, where headers cannot be set"),
            header("last-event-id", "As ``after``, sent by browsers that reconnect"),
        ],
    ),
)  # fmt: skip
async def stream_task(request: Request, task_id: str) -> Response:
    who = await caller(request, query_token=True)
    services = services_of(request)
    task = await services.tasks.get(who, task_id)
    after = _cursor(request)
    sse = "application/x-ndjson" not in request.headers.get("accept", "")
    if sse and "last-event-id" in request.headers and task.status.terminal and after >= task.last_seq:
        return Response(status_code=204)  # tells a browser's EventSource to stop reconnecting
    published_py = request.headers.get("user-agent", "").startswith("inference-sdk-py/")
    limit = PY_LINE_LIMIT if published_py else None
    return StreamReply(services.streams.read(task, after), sse=sse, line_limit=limit)


def _cursor(request: Request) -> int:
    text = request.query_params.get("after") or request.headers.get("last-event-id") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid.at("/after", f"{text!r} is not the seq of an update")
    return int(text)


@router.post(
    "/tasks/{task_id}/cancel",
    **document("cancelTask", "Cancel a task and all below it", data=TaskShape, body=CancelBody, errors=(403, 404)),
)
async def cancel(request: Request, task_id: str) -> Response:
    who = await caller(request)
    _, messages = await read_body(request, CancelBody)
    tasks = services_of(request).tasks
    task = await tasks.cancel(who, task_id)
    return _task_reply(request, task, [], messages, tasks.feed(task_id))


@router.delete(
    "/tasks/{task_id}",
    **document(
        "deleteTask", "Delete a finished task", data={"type": "object"}, errors=(400, 403, 404, 409),
        parameters=[query("files", "true: its files too", {"type": "boolean"})],
    ),
)  # fmt: skip
async def delete(request: Request, task_id: str) -> Response:
    who = await caller(request)
    services = services_of(request)
    if _flag(request, "files"):
        await services.tasks.check_deletable(who, task_id)
        await _delete_files(request, who, task_id, None)
    await services.tasks.delete(who, task_id)
    return reply(request, {"id": task_id, "deleted": True})


@router.post("/tasks/list", **document("listTasks", "Tasks, newest first", data=page_of(TaskShape), body=ListBody))
async def list_tasks(request: Request) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    page = await services_of(request).tasks.page(who, wanted)
    return reply(request, page_data(page, shapes.task_shape, wanted.limit), messages=messages)


@router.get("/tasks/{task_id}/logs", **document("getTaskLogs", "A task's log", data={"type": "object"}, errors=(404,)))
async def logs(request: Request, task_id: str) -> Response:
    tasks = services_of(request).tasks
    task = await tasks.get(await caller(request), task_id)
    return reply(request, shapes.logs_shape(task, await tasks.events(task)))


@router.get(
    "/tasks/{task_id}/timings", **document("getTaskTimings", "Time per state", data={"type": "object"}, errors=(404,))
)
async def timings(request: Request, task_id: str) -> Response:
    tasks = services_of(request).tasks
    task = await tasks.get(await caller(request), task_id)
    return reply(request, shapes.timings_shape(task, await tasks.events(task, kind="status")))


@router.post(
    "/tasks/{task_id}/inbox",
    **document(
        "sendToTask", "Send a message to a running task", data={"type": "object"}, body=InboxBody,
        errors=(403, 404, 409),
    ),
)  # fmt: skip
async def inbox(request: Request, task_id: str) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, InboxBody)
    item = await services_of(request).tasks.put_inbox(who, task_id, body.kind, body.content)
    data = {"task_id": task_id, "seq": item.seq, "kind": item.kind, "created_at": rfc3339(item.at)}
    return reply(request, data, messages=messages)


class TaskFileShape(BaseModel):
    """A file that a task read or wrote."""

    id: str
    created_at: str
    role: str
    uri: str
    filename: str
    content_type: str
    size: int | None


@router.get(
    "/tasks/{task_id}/files",
    **document("listTaskFiles", "Files of a task", data=array_of(TaskFileShape), errors=(400, 404), parameters=[_ROLE]),
)
async def files(request: Request, task_id: str) -> Response:
    services = services_of(request)
    pairs = await services.tasks.files(await caller(request), task_id, _role(request))
    data = [
        {
            "id": record.id,
            "created_at": rfc3339(link.created_at),
            "role": link.role,
            "uri": services.files.url(record),
            "filename": record.filename,
            "content_type": record.content_type,
            "size": record.size,
        }
        for link, record in pairs
    ]
    return reply(request, data)


@router.delete(
    "/tasks/{task_id}/files",
    **document(
        "deleteTaskFiles", "Delete a task's files", data={"type": "object"}, errors=(400, 403, 404), parameters=[_ROLE]
    ),
)
async def delete_files(request: Request, task_id: str) -> Response:
    who = await caller(request)
    return reply(request, await _delete_files(request, who, task_id, _role(request)))


async def _delete_files(request: Request, who: Any, task_id: str, role: str | None) -> dict[str, Any]:
    services = services_of(request)
    deleted: list[str] = []
    skipped: list[dict[str, str]] = []
    for _, record in await services.tasks.files(who, task_id, role):
        if record.owner_id != who.owner_id:
            skipped.append({"id": record.id, "reason": "belongs to another owner"})
        elif record.id not in deleted:
            await services.files.delete(who, record.id)
            deleted.append(record.id)
    return {"deleted": deleted, "skipped": skipped}


def _role(request: Request) -> str | None:
    role = request.query_params.get("role")
    if role not in (None, "input", "output"):
        raise Invalid.at("/role", "must be input or output")
    return role


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false", "1", "0"):
        raise Invalid.at(f"/{name}", "must be true or false")
    return text in ("true", "1")
