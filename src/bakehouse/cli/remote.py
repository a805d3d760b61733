"""The plain calls of the HTTP API that the commands make: one request, one answer, one clear failure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bakehouse.cli.endpoint import Endpoint, find_endpoint
from bakehouse.cli.failures import Exit, Failure

PAGE = 100


class Remote:
    """One server with one key."""

    def __init__(self, endpoint: Endpoint, client: httpx.Client) -> None:
        self.endpoint = endpoint
        self._client = client

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The ``data`` of the answer. Raises Failure: refused (status 2), unreachable or unauthorised (status 3)."""
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise unreachable(self.endpoint.url, error) from error
        if response.is_error:
            raise refused(response.status_code, _detail(response))
        return response.json()["data"]

    def all(self, path: str, limit: int, **query: Any) -> list[dict[str, Any]]:
        """Up to *limit* items of a cursor list, newest first."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(items) < limit:
            page = self.call("POST", path, {**query, "limit": min(PAGE, limit - len(items)), "cursor": cursor})
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                break
        return items[:limit]


@contextmanager
def open_remote(url: str | None, key: str | None, home: Path | None) -> Iterator[Remote]:
    """A connection to the server that the options of a command name."""
    endpoint = find_endpoint(url, key, home)
    headers = {"Authorization": f"Bearer {endpoint.key}", "X-Client-Source": "bakehouse-cli"}
    with httpx.Client(base_url=endpoint.url, headers=headers, timeout=30.0) as client:
        yield Remote(endpoint, client)


def unreachable(url: str, error: Exception) -> Failure:
    """There is no answer from *url*."""
    reason = str(error) or type(error).__name__
    return Failure(f"cannot reach {url}: {reason}", Exit.UNREACHABLE, hint="Is the server running? `bakehouse serve`")


def refused(status: int, detail: str) -> Failure:
    """The server answered, and not with success."""
    if status in (401, 403):
        return Failure(detail, Exit.UNREACHABLE)
    return Failure(detail, Exit.UNREACHABLE if status == 503 else Exit.USAGE)


def _detail(response: httpx.Response) -> str:
    try:
        found = response.json()
    except ValueError:
        return f"HTTP {response.status_code} from {response.url}: not an answer of this API"
    detail = str(found.get("detail") or found.get("title") or f"HTTP {response.status_code}")
    return field_lines(detail, found.get("errors") or [])


def field_lines(detail: str, errors: Iterable[Mapping[str, Any]]) -> str:
    """*detail* and, where several things are wrong, a line for each of them."""
    lines = [f"  {error.get('path') or error.get('key')}: {error.get('message')}" for error in errors]
    # A single one is the detail already.
    return "\n".join([detail, *lines]) if len(lines) > 1 else detail
