"""Tools, resources and prompts of MCP servers: those that the operator configured, or that the client relays."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

from inferlet._host import Host, host
from inferlet.aio._waits import result
from inferlet.content import AnyContent, Content, ToolResult, resource_of, tool_result

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AnyContent", "Content", "McpSession", "ToolResult", "available_servers", "connect"]


def available_servers() -> list[str]:
    """The names that `connect` takes."""
    found: list[str] = json.loads(host().mcp.servers())
    return found


async def connect(name: str) -> McpSession:
    """A session with the server *name*. Raises `NotFound`, or `McpError` where it cannot be reached."""
    found = host()
    return McpSession(found, name, int(await result(found, found.mcp.connect(name))))


class McpSession:
    """One session with one server. A call that the server answers with an error raises `McpError`."""

    def __init__(self, host: Host, name: str, handle: int) -> None:
        self.name = name
        self._host = host
        self._handle = handle
        self._closed = False

    async def list_tools(self) -> str:
        """JSON text: an object with the list ``tools``, of all pages."""
        return await self._list("tools/list", "tools")

    async def call_tool(self, name: str, args_json: str = "{}") -> ToolResult:
        """Call the tool *name*; *args_json* is the JSON text of an object. A list of `Content`."""
        return tool_result(await self._request("tools/call", {"name": name, "arguments": _object(args_json)}))

    async def list_resources(self) -> str:
        """JSON text: an object with the list ``resources``, of all pages."""
        return await self._list("resources/list", "resources")

    async def read_resource(self, uri: str) -> list[AnyContent]:
        """The parts of one resource."""
        answer = await self._request("resources/read", {"uri": uri})
        return [resource_of(part) for part in answer.get("contents", [])]

    async def list_prompts(self) -> str:
        """JSON text: an object with the list ``prompts``, of all pages."""
        return await self._list("prompts/list", "prompts")

    async def get_prompt(self, name: str, args_json: str = "{}") -> str:
        """JSON text: an object with the list ``messages``."""
        return json.dumps(await self._request("prompts/get", {"name": name, "arguments": _object(args_json)}))

    def close(self) -> None:
        """End the session. May be repeated."""
        if not self._closed:
            self._closed = True
            self._host.mcp.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _list(self, method: str, field: str) -> str:
        rows: list[Any] = []
        params: dict[str, Any] = {}
        while True:
            answer = await self._request(method, params)
            rows += answer.get(field, [])
            if not answer.get("nextCursor"):
                return json.dumps({field: rows})
            params = {"cursor": answer["nextCursor"]}

    async def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = await result(self._host, self._host.mcp.request(self._handle, method, json.dumps(params)))
        found: dict[str, Any] = json.loads(answer)
        return found


def _object(args_json: str) -> dict[str, Any]:
    found = json.loads(args_json)
    if not isinstance(found, dict):
        raise ValueError(f"arguments are the JSON text of an object, not {args_json!r}")
    return found
