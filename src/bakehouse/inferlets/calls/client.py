"""The client that launched the instance, or is attached to it."""

from __future__ import annotations

from bakehouse.inferlets.calls.base import Interface, check_size
from bakehouse.inferlets.calls.packing import pack_file, unpack_file
from bakehouse.inferlets.calls.results import Once


class Client(Interface):
    def send(self, text: str) -> None:
        guest = self._guest
        guest.outlet.message(check_size("message", text, guest.limits.message, "a message"))

    def receive(self) -> int:
        inbox = self._guest.messages

        def tell(text: str) -> str:
            inbox.used(text)
            return text

        return self._guest.waits.add(lambda: Once(inbox.receive(), tell, undo=inbox.put_back))

    def send_file(self, data: str) -> None:
        guest = self._guest
        guest.outlet.file(unpack_file(data, guest.limits.file))

    def receive_file(self) -> int:
        inbox = self._guest.files

        def tell(data: bytes) -> str:
            inbox.used(data)
            return pack_file(data)

        return self._guest.waits.add(lambda: Once(inbox.receive(), tell, undo=inbox.put_back))
