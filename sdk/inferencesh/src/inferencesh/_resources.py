"""What stands below a client's ``tasks``, ``apps``, ``files`` and ``sessions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferencesh import _run
from inferencesh._api import segment
from inferencesh._flow import Flow
from inferencesh._models import Page, Record, Task, UploadFileOptions
from inferencesh._operations import Bound, D, operation


def list_body(
    limit: int | None, cursor: str | None, filters: Mapping[str, Any] | None, search: str | None
) -> dict[str, Any]:
    """The body of a list request; *filters* are pairs of field and wanted value."""
    body: dict[str, Any] = {"limit": limit, "cursor": cursor}
    if filters:
        body["filters"] = [{"field": key, "operator": "eq", "value": value} for key, value in filters.items()]
    if search:
        body["search"] = {"term": search}
    return {name: value for name, value in body.items() if value is not None}


def record(value: Any) -> Record:
    """An answer that is an object; anything else is empty."""
    return Record(value if isinstance(value, dict) else {})


def records(value: Any) -> list[Record]:
    """An answer that is an array, or the ``items`` of one."""
    items = value.get("items") if isinstance(value, dict) else value
    return [Record(item) for item in items or []]


class Tasks(Bound[D]):
    """Tasks of the key's owner."""

    @operation
    def get(self, task_id: str) -> Flow[Task]:
        """The task as it stands. Raises NotFound."""
        return (yield from _run.get_task(self._api, task_id))

    @operation
    def cancel(self, task_id: str) -> Flow[Record]:
        """Ask the task to stop. A task that is over stays as it is. Raises NotFound."""
        return record((yield from self._api.call("POST", f"/tasks/{segment(task_id)}/cancel")))

    @operation
    def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filters: Mapping[str, Any] | None = None,
        search: str | None = None,
    ) -> Flow[Page]:
        """A page of tasks, newest first. *filters*: field and wanted value, such as ``{"status": 10}``."""
        data = yield from self._api.call("POST", "/tasks/list", body=list_body(limit, cursor, filters, search))
        return Page(data, Task)

    @operation
    def delete(self, task_id: str, *, files: bool = False) -> Flow[None]:
        """Delete a finished task, with *files* its files too. Raises NotFound, Conflict while it is not over."""
        query = {"files": "true"} if files else {}
        yield from self._api.call("DELETE", f"/tasks/{segment(task_id)}", query=query)

    @operation
    def logs(self, task_id: str) -> Flow[Record]:
        """``{"events": [...], "logs": [{"content", "stream", ...}]}``: the log with times, and status moves."""
        return record((yield from self._api.call("GET", f"/tasks/{segment(task_id)}/logs")))

    @operation
    def timings(self, task_id: str) -> Flow[Record]:
        """How long the task was in each state: ``total_duration`` seconds, ``groups`` and ``events``."""
        return record((yield from self._api.call("GET", f"/tasks/{segment(task_id)}/timings")))

    @operation
    def files(self, task_id: str, *, role: str | None = None) -> Flow[Sequence[Record]]:
        """Files that the task read (*role* ``input``) or wrote (``output``)."""
        query = {"role": role}
        return records((yield from self._api.call("GET", f"/tasks/{segment(task_id)}/files", query=query)))

    @operation
    def delete_files(self, task_id: str, *, role: str | None = None) -> Flow[Record]:
        """Delete the task's files: ``{"deleted": [id], "skipped": [{"id", "reason"}]}``."""
        query = {"role": role}
        return record((yield from self._api.call("DELETE", f"/tasks/{segment(task_id)}/files", query=query)))

    @operation
    def send(self, task_id: str, content: Any, *, kind: str = "message") -> Flow[Record]:
        """Send a message to a running task. Raises NotFound, Conflict when it is over."""
        body = {"kind": kind, "content": content}
        return record((yield from self._api.call("POST", f"/tasks/{segment(task_id)}/inbox", body=body)))


class Apps(Bound[D]):
    """Apps that the key may see."""

    @operation
    def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filters: Mapping[str, Any] | None = None,
        search: str | None = None,
    ) -> Flow[Page]:
        """A page of apps."""
        data = yield from self._api.call("POST", "/apps/list", body=list_body(limit, cursor, filters, search))
        return Page(data)

    @operation
    def get(self, app: str) -> Flow[Record]:
        """An app by its id or its ``namespace/name``. Raises NotFound."""
        path = "/".join(segment(part) for part in app.split("/"))
        return record((yield from self._api.call("GET", f"/apps/{path}")))

    @operation
    def delete(self, app_id: str) -> Flow[None]:
        """Delete an app by its id. Raises NotFound."""
        yield from self._api.call("DELETE", f"/apps/{segment(app_id)}")


class Files(Bound[D]):
    """Files of the key's owner."""

    @operation
    def upload(self, source: Any, options: UploadFileOptions | None = None) -> Flow[Record]:
        """Upload a path, bytes, data URI, base64, an open file or a ``File``; the record's ``uri`` is its address."""
        return (yield from _run.upload_file(self._api, source, options))

    @operation
    def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filters: Mapping[str, Any] | None = None,
        search: str | None = None,
    ) -> Flow[Page]:
        """A page of files."""
        data = yield from self._api.call("POST", "/files/list", body=list_body(limit, cursor, filters, search))
        return Page(data)

    @operation
    def get(self, file_id: str) -> Flow[Record]:
        """A file's record. Raises NotFound."""
        return record((yield from self._api.call("GET", f"/files/{segment(file_id)}")))

    @operation
    def delete(self, file_id: str) -> Flow[None]:
        """Delete a file; its address stops working. Raises NotFound."""
        yield from self._api.call("DELETE", f"/files/{segment(file_id)}")


class Sessions(Bound[D]):
    """Sessions: series of calls to one leased instance."""

    @operation
    def list(self) -> Flow[Sequence[Record]]:
        """All sessions of the key's owner."""
        return records((yield from self._api.call("GET", "/sessions")))

    @operation
    def get(self, session_id: str) -> Flow[Record]:
        """A session. Raises NotFound."""
        return record((yield from self._api.call("GET", f"/sessions/{segment(session_id)}")))

    @operation
    def keepalive(self, session_id: str) -> Flow[Record]:
        """Start the session's idle time anew. Raises NotFound, Gone."""
        return record((yield from self._api.call("POST", f"/sessions/{segment(session_id)}/keepalive")))

    @operation
    def end(self, session_id: str) -> Flow[None]:
        """End a session and free its instance. Raises NotFound."""
        yield from self._api.call("DELETE", f"/sessions/{segment(session_id)}")
