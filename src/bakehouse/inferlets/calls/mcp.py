"""MCP servers that the operator configured, or that the launching client relays."""

from __future__ import annotations

import orjson

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.base import McpSession
from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.forms import read
from bakehouse.inferlets.calls.results import Once


class Mcp(Interface):
    def servers(self) -> str:
        guest = self._guest
        return orjson.dumps(guest.services.mcp.names(guest.launch)).decode()

    def connect(self, name: str) -> int:
        guest = self._guest
        server = self._text(name, "name")
        kept = guest.mcp.promise()
        try:
            return guest.waits.add(
                lambda: Once(
                    guest.services.mcp.connect(guest.launch, server),
                    lambda session: str(guest.mcp.add(session)),
                    undo=McpSession.close,
                    over=kept,
                )
            )
        except BaseException:
            kept()
            raise

    def request(self, session: int, method: str, params: str) -> int:
        found = self._guest.mcp.get(session)
        name, given = self._text(method, "method"), read("params", self._text(params, "params"))
        if not isinstance(given, dict):
            raise BadRequest.at("params", "must be a JSON object")
        return self._guest.waits.add(
            lambda: Once(found.request(name, given), lambda result: orjson.dumps(result).decode())
        )

    def close(self, session: int) -> None:
        self._guest.mcp.pop(session).close()

    def _text(self, text: str, name: str) -> str:
        return check_size("message", text, self._guest.limits.message, name)
