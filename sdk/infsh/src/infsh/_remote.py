"""The few HTTP calls that the command needs: one request, one answer, one clear error."""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8787"
URL_VARIABLE = "INFERENCE_BASE_URL"
KEY_VARIABLES = ("INFERENCE_API_KEY", "INFSH_API_KEY")
TERMINAL = ("completed", "failed", "cancelled", "rejected")
RECONNECTS = 5
IDLE_SECONDS = 20.0  # the server sends a heartbeat every few seconds


class RemoteError(Exception):
    """The server refused; ``status`` is the HTTP status, 0 when it could not be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def unreachable(self) -> bool:
        """Whether there was no usable answer: no connection, or a key that is missing or refused."""
        return self.status in (0, 401, 403, 503)


class Remote:
    """One server with one key; a context manager."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}", "X-Client-Source": "infsh"}
        self._client = httpx.Client(headers=headers, timeout=60.0)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The ``data`` of the answer. Raises `RemoteError`."""
        return self.answer(method, path, body, headers)["data"]

    def answer(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The whole envelope: ``data`` and ``messages``. Raises `RemoteError`."""
        try:
            response = self._client.request(method, self.url + path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _check(response)
        found = response.json()
        return found if isinstance(found, dict) and "data" in found else {"data": found}

    def upload(self, path: Path, content_type: str | None = None) -> dict[str, Any]:
        """The record of an uploaded file, its ``uri`` included; the bytes are streamed. Raises `RemoteError`."""
        kind = content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        size = path.stat().st_size
        entry = {"uri": "", "filename": path.name, "content_type": kind, "size": size}
        record: dict[str, Any] = self.call("POST", "/files", {"files": [entry]})[0]
        try:
            with path.open("rb") as file:
                # A client without our key: the URL carries its own permission and may be another host's.
                response = httpx.put(
                    record["upload_url"],
                    content=iter(lambda: file.read(1 << 20), b""),
                    headers={"Content-Type": kind, "Content-Length": str(size)},
                    timeout=httpx.Timeout(60.0, write=None),
                )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _check(response)
        return record

    def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """The accepted task."""
        task: dict[str, Any] = self.call("POST", "/apps/run", body, {"Idempotency-Key": uuid.uuid4().hex})
        return task

    def follow(self, task_id: str) -> Iterator[dict[str, Any]]:
        """A task's updates until the last one; a cut stream goes on where it ended. Raises `RemoteError`."""
        after, failures = 0, 0
        while failures <= RECONNECTS:
            try:
                for update in self._stream(task_id, after):
                    failures = 0
                    after = max(after, int(update.get("seq") or 0))
                    yield update
                    if update.get("status_text") in TERMINAL:
                        return
                failures += 1  # it ended before the task did: the server restarts
            except httpx.TransportError as error:
                failures += 1
                if failures > RECONNECTS:
                    raise self._unreachable(error) from error
        raise RemoteError(f"the stream of {task_id} ends again and again; the task goes on")

    def _stream(self, task_id: str, after: int) -> Iterator[dict[str, Any]]:
        url = f"{self.url}/tasks/{task_id}/stream"
        query = {"after": str(after)} if after else {}
        timeout = httpx.Timeout(10.0, read=IDLE_SECONDS)
        accept = {"Accept": "application/x-ndjson"}
        with self._client.stream("GET", url, params=query, headers=accept, timeout=timeout) as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                update = json.loads(line) if line.strip() else {}
                if update.get("id") and "status" in update:
                    yield update

    def _unreachable(self, error: Exception) -> RemoteError:
        return RemoteError(f"cannot reach {self.url}: {str(error) or type(error).__name__}")


def open_remote(url: str | None = None, key: str | None = None) -> Remote:
    """The server that is named, else the environment's. Raises `RemoteError` when there is no key."""
    secret = key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    if not secret:
        raise RemoteError(f"no API key: pass --key or set {KEY_VARIABLES[0]}")
    return Remote(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL, secret)


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        found = response.json()
    except ValueError:
        found = {}
    detail = found.get("detail") or found.get("title") if isinstance(found, dict) else None
    lines = [str(detail or f"HTTP {response.status_code} from {response.url}")]
    errors = found.get("errors") or [] if isinstance(found, dict) else []
    if len(errors) > 1:
        lines += [f"  {error.get('path') or error.get('key')}: {error.get('message')}" for error in errors]
    raise RemoteError("\n".join(lines), response.status_code)
