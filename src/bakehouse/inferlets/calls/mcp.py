"""MCP servers that the operator configured, or that the launching client relays."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import orjson

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.base import McpSession
from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.forms import read
from bakehouse.inferlets.calls.inbox import Room
from bakehouse.inferlets.calls.results import Once, result_of


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
        room = self._guest.room

        def tell(text: str) -> str:
            room.give(len(text))
            return text

        return self._guest.waits.add(
            lambda: Once(_held(found.request(name, given), room), tell, undo=lambda text: room.give(len(text)))
        )

    def close(self, session: int) -> None:
        self._guest.mcp.pop(session).close()

    def _text(self, text: str, name: str) -> str:
        return check_size("message", text, self._guest.limits.message, name)


def _held(asked: Future[Any], room: Room) -> Future[str]:
    """The text of an answer, which took its *room* when it came: others say how long it is. Fails with `Refused`."""
    held: Future[str] = Future()

    def came(_: Future[Any]) -> None:
        if not held.set_running_or_notify_cancel():
            return
        try:
            text = orjson.dumps(result_of(asked)).decode()
            room.take(len(text))
        except Exception as error:  # whatever it is, whoever asked gets it
            held.set_exception(error)
        else:
            held.set_result(text)

    asked.add_done_callback(came)
    held.add_done_callback(lambda _: asked.cancel() if held.cancelled() else None)
    return held
