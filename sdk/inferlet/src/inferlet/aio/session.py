"""The client that launched this program, or that attached to it since."""

from __future__ import annotations

from inferlet._host import host
from inferlet._packing import pack_file, unpack_file
from inferlet.aio._waits import result


def send(text: str) -> None:
    """Send *text*; nobody waits for it to be read. Raises `LimitExceeded` for more bytes than ``message`` allows."""
    host().client.send(text)


async def receive() -> str:
    """The next message, in the order they were sent; those that came before the call wait in a queue."""
    found = host()
    return await result(found, found.client.receive())


def send_file(data: bytes) -> None:
    """Send *data* as a file. Raises `LimitExceeded` for more bytes than ``file`` allows."""
    host().client.send_file(pack_file(data))


async def receive_file() -> bytes:
    """The next file, in the order they were sent; those that came before the call wait in a queue."""
    found = host()
    return unpack_file(await result(found, found.client.receive_file()))
