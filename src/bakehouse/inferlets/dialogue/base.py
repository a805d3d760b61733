"""What a dialogue stands on: who speaks, and the parts of the host that answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.dialogue.frames import Room
from bakehouse.inferlets.dialogue.relay import Relays
from bakehouse.inferlets.processes import Processes
from bakehouse.inferlets.programs import ProgramStore

SCOPES = ("run", "deploy", "admin")


@dataclass(frozen=True, slots=True)
class Who:
    """The client of a dialogue, as its key says. ``owner`` is whose programs and processes it sees."""

    owner: str
    username: str
    scopes: frozenset[str] = frozenset(SCOPES)

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class Desk:
    """One for all dialogues of a host. *limits* are what an instance gets at most."""

    processes: Processes
    programs: ProgramStore
    relays: Relays
    limits: Limits = field(default_factory=Limits)
    #: For what clients are sending.
    room: Room = field(default_factory=Room)
