"""A bakery's tools, as a server that speaks MCP over its standard streams."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server import MCPServer
from pydantic import Field

server = MCPServer("bakery")


@server.tool()
def flour(loaves: Annotated[int, Field(ge=1, le=20)]) -> str:
    """Grams of flour for so many loaves."""
    return f"{loaves * 500} g"


@server.tool()
def price(of: Literal["rye", "wheat"]) -> str:
    """The price of one loaf."""
    return {"rye": "4.20", "wheat": "3.80"}[of]


if __name__ == "__main__":
    server.run("stdio")
