"""The plain calls of the HTTP API that the commands make, through the app SDK's own client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infsh._remote import Remote as PlainRemote
from infsh._remote import RemoteError

from bakehouse.cli.endpoint import find_endpoint
from bakehouse.cli.failures import Exit, Failure

__all__ = ["Remote", "RemoteError", "field_lines", "open_remote", "refused"]

PAGE = 100


class Remote(PlainRemote):
    """One server with one key. Its calls raise RemoteError."""

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
    remote = Remote(endpoint.url, endpoint.key)
    with remote:
        yield remote


def refused(status: int, detail: str) -> Failure:
    """The server answered, and not with success; *status* 0 is no answer at all."""
    if status == 0:
        return Failure(detail, Exit.UNREACHABLE, hint="Is the server running? `bakehouse serve` starts one.")
    return Failure(detail, Exit.UNREACHABLE if status in (401, 403, 503) else Exit.USAGE)


def field_lines(detail: str, errors: Iterable[Mapping[str, Any]]) -> str:
    """*detail* and, where several things are wrong, a line for each of them."""
    lines = [f"  {error.get('path') or error.get('key')}: {error.get('message')}" for error in errors]
    # A single one is the detail already.
    return "\n".join([detail, *lines]) if len(lines) > 1 else detail
