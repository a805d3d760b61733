"""MCP servers for programs: those that an operator configured, and those that a launching client relays."""

from bakehouse.inferlets.mcp.base import METHODS, McpServer
from bakehouse.inferlets.mcp.configured import ConfiguredMcp
from bakehouse.inferlets.mcp.directory import McpDirectory
from bakehouse.inferlets.mcp.relayed import RelayedMcp

__all__ = ["METHODS", "ConfiguredMcp", "McpDirectory", "McpServer", "RelayedMcp"]
