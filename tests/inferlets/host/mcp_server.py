"""An MCP server to be tried: over its standard streams, or with a port as argument over HTTP, for who has the key."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

KEY = "Bearer secret"

server = MCPServer("tried")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
def process() -> str:
    """Which process answers, and what it was started with."""
    return f"{os.getpid()} {os.environ.get('TRIED', '')} {os.environ.get('NOT_HANDED_ON', '')}"


@server.tool()
def fail(text: str) -> str:
    raise ToolError(text)


@server.tool()
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


@server.tool()
def die() -> str:
    os._exit(3)


@server.tool()
def much(size: int) -> str:
    return "x" * size


@server.resource("recipe://rye")
def rye() -> str:
    return "patience"


@server.prompt()
def order(guest: str) -> str:
    return f"{guest} wants bread."


async def guarded(scope: Any, receive: Any, send: Any) -> None:
    """The application, for requests that have the key. It has sessions, as long as nobody asks in a newer way."""
    headers = dict(scope.get("headers", ()))
    keyless = scope["type"] == "http" and headers.get(b"authorization") != KEY.encode()
    if keyless or headers.get(b"mcp-method") == b"server/discover":
        await send({"type": "http.response.start", "status": 401 if keyless else 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await app(scope, receive, send)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import uvicorn

        app = server.streamable_http_app()
        uvicorn.run(guarded, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
    else:
        server.run("stdio")
