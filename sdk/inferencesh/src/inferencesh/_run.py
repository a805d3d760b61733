"""Running an app, waiting for a task, uploading a file: the flows behind the client's main methods."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from inferencesh._api import Api, segment
from inferencesh._errors import APIError
from inferencesh._flow import Flow, Request
from inferencesh._follow import Deadline, Follower, Observer
from inferencesh._models import Record, StreamingOptions, Task, UploadFileOptions
from inferencesh._sources import Upload, collect, upload_of
from inferencesh._story import Story, settle

WAIT_SECONDS = 25
"""How long the server is asked to hold the answer back for a short task."""

UPLOAD_TIMEOUT = 300.0


def start(api: Api, params: Mapping[str, Any], wait: int = 0) -> Flow[Task]:
    """Upload what the input holds, then run; with *wait* the answer is the finished task if it ends in so many seconds.

    Every run carries an idempotency key, so that it can be sent again when the connection breaks.
    """
    body = yield from prepare(api, params)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    if wait:
        headers["Prefer"] = f"wait={wait}"
    request = api.request("POST", "/apps/run", body=body, headers=headers, timeout=api.settings.timeout + wait)
    data, messages = yield from api.exchange(request)
    return Task(data, messages)


def prepare(api: Api, params: Mapping[str, Any]) -> Flow[dict[str, Any]]:
    """*params* as the body of a run: files inside ``input`` and ``setup`` are uploaded and replaced by their URIs."""
    if not isinstance(params, Mapping):
        raise TypeError(f"run() takes a dict with 'app' and 'input', not {type(params).__name__}")
    body = dict(params)
    for name in ("input", "setup"):
        if body.get(name) is not None:
            body[name] = yield from with_uploads(api, body[name])
    return body


def with_uploads(api: Api, value: Any) -> Flow[Any]:
    """A JSON-able copy of *value* in which files are replaced by the URIs they were uploaded to."""
    box, found = collect(value)
    for item in found:
        record = yield from upload(api, item.upload)
        item.put(str(record["uri"]))
    return box["value"]


def upload_file(api: Api, source: Any, options: UploadFileOptions | None = None) -> Flow[Record]:
    """Upload *source* and return the file's record."""
    return (yield from upload(api, upload_of(source), options or UploadFileOptions()))


def upload(api: Api, source: Upload, options: UploadFileOptions | None = None) -> Flow[Record]:
    """Announce a file, then send its bytes to the address that the server gave for them."""
    entry = source.entry(options or UploadFileOptions())
    data, messages = yield from api.exchange(api.request("POST", "/files", body={"files": [entry]}))
    record = data[0] if isinstance(data, list) and data else data
    if not isinstance(record, dict) or not record.get("upload_url"):
        raise APIError(200, "the server gave no upload_url for the file", str(data)[:500])
    # The address is its own permission: it may belong to another host, which must not see the key.
    headers = {"Content-Type": entry["content_type"], "Content-Length": str(source.size)}
    request = Request("PUT", str(record["upload_url"]), headers, source, max(UPLOAD_TIMEOUT, api.settings.timeout))
    yield from api.exchange(request)
    return Record(record, messages)


def run(
    api: Api,
    params: Mapping[str, Any],
    *,
    wait: bool,
    options: StreamingOptions | None,
    timeout: float | None,
    observers: Sequence[Observer],
) -> Flow[Task]:
    """Run and return the finished task (raises TaskFailed, TaskCancelled, TaskTimeout), or the accepted one."""
    if not wait:
        return (yield from start(api, params))
    deadline = Deadline(timeout, api.clock)
    # Somebody who watches wants the stream from the first moment; everybody else one round trip.
    seconds = 0 if observers else int(deadline.left(WAIT_SECONDS))
    accepted = yield from start(api, params, seconds)
    task = yield from finish(api, accepted, options=options, deadline=deadline, observers=observers)
    task.messages = accepted.messages  # what the server remarks on the request, it says only once
    return task


def finish(
    api: Api,
    task: Task,
    *,
    options: StreamingOptions | None,
    deadline: Deadline,
    observers: Sequence[Observer] = (),
) -> Flow[Task]:
    """Follow *task* to its end and return it whole. Raises TaskFailed, TaskCancelled, TaskTimeout."""
    if observers or not task.status.terminal:
        # Nobody to show it to: what happened so far need not be sent again.
        story = Story(task.id, 0 if observers else int(task.get("seq") or 0))
        yield from Follower(api, story, options, deadline, observers).follow()
        task = yield from get_task(api, task.id)
    return settle(task)


def get_task(api: Api, task_id: str) -> Flow[Task]:
    """The task as it stands."""
    data, messages = yield from api.exchange(api.request("GET", f"/tasks/{segment(task_id)}"))
    return Task(data, messages)


def wait_for_completion(
    api: Api,
    task_id: str,
    *,
    timeout: float | None,
    options: StreamingOptions | None,
    observers: Sequence[Observer] = (),
) -> Flow[Task]:
    """Wait for a task. Raises TaskFailed, TaskCancelled, TaskTimeout, NotFound."""
    deadline = Deadline(timeout, api.clock)
    task = yield from get_task(api, task_id)
    return (yield from finish(api, task, options=options, deadline=deadline, observers=observers))
