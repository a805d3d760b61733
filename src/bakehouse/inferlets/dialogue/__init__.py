"""What a client and a host say to each other; `docs/inferlet-protocol.md` is its page. Start reading at `dialogue`."""

from bakehouse.inferlets.dialogue.base import SCOPES, Desk, Who
from bakehouse.inferlets.dialogue.conversation import LocalDialogue
from bakehouse.inferlets.dialogue.dialogue import Dialogue
from bakehouse.inferlets.dialogue.frames import MAX_FRAME, Frame

__all__ = ["MAX_FRAME", "SCOPES", "Desk", "Dialogue", "Frame", "LocalDialogue", "Who"]
