"""MCP servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bakehouse.inferlets.errors import McpFailed
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie import base
from bakehouse.inferlets.sandbox.pie.base import PARSER, letting_go, taken
from bakehouse.inferlets.sandbox.running import Running

_UNKNOWN, _FAILED = -1, -32000


@dataclass(frozen=True, slots=True)
class Session:
    handle: int


class _Unknown(McpFailed):
    """No server has this name."""


def said(error: Exception) -> tuple[int, str, None] | None:
    text = base.said(error)
    return None if text is None else (_UNKNOWN if isinstance(error, _Unknown) else _FAILED, text, None)


def _servers(running: Running) -> list[str]:
    found: list[str] = json.loads(running.calls.mcp.servers())
    return found


def _connect(running: Running, name: str) -> Session:
    if name not in _servers(running):
        raise _Unknown(f"there is no MCP server {name!r}")
    return Session(int(taken(running, running.calls.mcp.connect(name))))


def _close(running: Running, session: Session) -> None:
    running.calls.mcp.close(session.handle)


def _ask(running: Running, session: Session, method: str, **fields: Any) -> dict[str, Any]:
    wait = running.calls.mcp.request(session.handle, method, json.dumps(fields))
    found: dict[str, Any] = json.loads(taken(running, wait))
    return found


def _listing(method: str) -> Callable[[Running, Session], str]:
    """All pages as one."""
    field = method.split("/", maxsplit=1)[0]

    def call(running: Running, session: Session) -> str:
        rows: list[Any] = []
        more: dict[str, Any] = {}
        while True:
            page = _ask(running, session, method, **more)
            rows += page.get(field, [])
            if not page.get("nextCursor"):
                return json.dumps({field: rows})
            more = {"cursor": page["nextCursor"]}

    return call


def _given(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise McpFailed(f"the arguments are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise McpFailed("the arguments must be a JSON object")
    return found


def _call_tool(running: Running, session: Session, name: str, given: str) -> list[Any]:
    answer = _ask(running, session, "tools/call", name=name, arguments=_given(given))
    return [_content(part) for part in answer.get("content", [])]


def _read(running: Running, session: Session, uri: str) -> list[Any]:
    answer = _ask(running, session, "resources/read", uri=uri)
    return [("embedded-resource", _resource(part)) for part in answer.get("contents", [])]


def _prompt(running: Running, session: Session, name: str, given: str) -> str:
    return json.dumps(_ask(running, session, "prompts/get", name=name, arguments=_given(given)))


def _content(part: dict[str, Any]) -> Any:
    """One part of an answer; what has no case of its own is its JSON."""
    kind = part.get("type")
    if kind == "text":
        return "text", part["text"]
    if kind == "image":
        return "image", (part["mimeType"], base64.b64decode(part["data"]))
    if kind == "resource":
        return "embedded-resource", _resource(part["resource"])
    if kind == "resource_link":
        return "embedded-resource", _resource(part)
    return "text", json.dumps(part)


def _resource(part: dict[str, Any]) -> tuple[str, str | None, str | None, bytes | None]:
    blob = part.get("blob")
    return part["uri"], part.get("mimeType"), part.get("text"), None if blob is None else base64.b64decode(blob)


_of, _self = "[method]session.", "borrow<mcp-session>"
_text, _parts = "result<string, mcp-error>", "result<list<content>, mcp-error>"
_TABLE: dict[str, Callable[..., Any]] = {
    "available-servers() -> list<string>": _servers,
    "connect(string) -> result<own<mcp-session>, mcp-error>": _connect,
    f"{_of}list-tools({_self}) -> {_text}": _listing("tools/list"),
    f"{_of}list-resources({_self}) -> {_text}": _listing("resources/list"),
    f"{_of}list-prompts({_self}) -> {_text}": _listing("prompts/list"),
    f"{_of}call-tool({_self}, string, string) -> {_parts}": _call_tool,
    f"{_of}read-resource({_self}, string) -> {_parts}": _read,
    f"{_of}get-prompt({_self}, string, string) -> {_text}": _prompt,
}


def interfaces() -> Iterator[Interface]:
    resources = {"session": letting_go(_close)}
    yield Interface("pie:mcp/client@0.2.0", said, PARSER, _TABLE, resources, {"session": "mcp-session"})
