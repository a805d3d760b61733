"""All interfaces of one guest, under the names of the WIT package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bakehouse.inferlets.calls.adapters import Adapters
from bakehouse.inferlets.calls.client import Client
from bakehouse.inferlets.calls.contexts import Contexts
from bakehouse.inferlets.calls.decoders import Decoders
from bakehouse.inferlets.calls.grammars import Grammars
from bakehouse.inferlets.calls.mcp import Mcp
from bakehouse.inferlets.calls.messaging import Messaging
from bakehouse.inferlets.calls.models import Models
from bakehouse.inferlets.calls.passes import Passes
from bakehouse.inferlets.calls.runtime import Runtime
from bakehouse.inferlets.calls.waits import Waits

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest


class Calls:
    """Called on the guest's thread, or from many threads where the guest runs outside a sandbox."""

    def __init__(self, guest: Guest) -> None:
        self.waits = Waits(guest)
        self.models = Models(guest)
        self.contexts = Contexts(guest)
        self.passes = Passes(guest)
        self.grammars = Grammars(guest)
        self.decoders = Decoders(guest)
        self.adapters = Adapters(guest)
        self.client = Client(guest)
        self.runtime = Runtime(guest)
        self.messaging = Messaging(guest)
        self.mcp = Mcp(guest)
