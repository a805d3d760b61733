"""The WebSockets' protocol, with one change: who has not said who it is cannot send much."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Bytes of the first frame of a client whose header names no key.
MAX_HELLO = 64 << 10
#: What an application receives third: the connection itself is the first, a hello the second.
_AFTER_HELLO = 3


class GreetingProtocol(WebSocketsSansIOProtocol):
    """uvicorn's. Frames may be long once the application has accepted a key, or the first frame."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.max_message_size = MAX_HELLO
        self._asked = 0

    async def send(self, message: Any) -> None:
        """The application's."""
        if message["type"] == "websocket.accept" and "Authorization" in self.request.headers:
            self._trust()
        await super().send(message)

    async def receive(self) -> Any:
        """The application's."""
        self._asked += 1
        if self._asked == _AFTER_HELLO:
            self._trust()
        return await super().receive()

    def _trust(self) -> None:
        self.conn.max_message_size = self.config.ws_max_size
