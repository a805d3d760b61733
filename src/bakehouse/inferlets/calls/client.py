"""The client that launched the instance, or is attached to it."""

from __future__ import annotations

from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.packing import pack_file, unpack_file


class Client(Interface):
    def send(self, text: str) -> None:
        guest = self._guest
        guest.outlet.message(check_size("message", text, guest.limits.message, "a message"))

    def receive(self) -> int:
        inbox = self._guest.messages
        return self._guest.waits.add(lambda: inbox.receive(str))

    def send_file(self, data: str) -> None:
        guest = self._guest
        guest.outlet.file(unpack_file(data, guest.limits.file))

    def receive_file(self) -> int:
        inbox = self._guest.files
        return self._guest.waits.add(lambda: inbox.receive(pack_file))
