"""MCP servers for programs, which the operator configured."""

from bakehouse.inferlets.mcp.base import METHODS, McpServer, check_request
from bakehouse.inferlets.mcp.configured import ConfiguredMcp

__all__ = ["METHODS", "ConfiguredMcp", "McpServer", "check_request"]
