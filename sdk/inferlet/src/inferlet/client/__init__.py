"""Launch programs on a server and talk with them: the client side of the WebSocket protocol.

    async with connect("ws://127.0.0.1:8787", token=KEY) as client:
        process = await client.launch("hello-world@1.0.0", ["--name", "Ada"])
        async for event in process:
            print(event)

Needs the extra ``client`` (``pip install 'bakehouse-inferlet[client]'``). This is for those who launch programs; what
a program itself says to its client is `inferlet.session`.
"""

from inferlet.client._client import Client, connect
from inferlet.client._errors import ConnectionLost, Forbidden, ProgramFailed, Unauthorized
from inferlet.client._events import Ended, Event, File, Gap, Message, Stderr, Stdout
from inferlet.client._process import Process

__all__ = [
    "Client",
    "ConnectionLost",
    "Ended",
    "Event",
    "File",
    "Forbidden",
    "Gap",
    "Message",
    "Process",
    "ProgramFailed",
    "Stderr",
    "Stdout",
    "Unauthorized",
    "connect",
]
