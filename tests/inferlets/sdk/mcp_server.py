"""A kitchen's tools, as a server that speaks MCP over its standard streams."""

from __future__ import annotations

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("kitchen")


@server.tool()
def flour(loaves: int) -> str:
    """Grams of flour for so many loaves."""
    if loaves > 20:
        raise ToolError("the oven holds 20")
    return f"{loaves * 500} g"


@server.resource("recipe://rye")
def rye() -> str:
    """How rye bread is made."""
    return "sour dough, salt, patience"


@server.prompt()
def order(guest: str) -> str:
    """What a guest says."""
    return f"{guest} wants bread."


if __name__ == "__main__":
    server.run("stdio")
