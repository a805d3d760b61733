"""Who is asking. An owner is a namespace and a team; users belong to owners; a key speaks for both."""

from __future__ import annotations

from dataclasses import dataclass

from bakehouse.core.errors import Forbidden

SCOPES = ("run", "deploy", "admin")
"""``run`` calls apps, ``deploy`` puts code on the machine, ``admin`` does both and manages keys and secrets."""


@dataclass(frozen=True, slots=True)
class Owner:
    """``name`` is unique and is the namespace of the owner's apps."""

    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as stored: its hash, never its text. ``prefix`` is the part that people recognise it by."""

    id: str
    owner_id: str
    user_id: str
    name: str
    prefix: str
    hash: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
    last_used_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The one who makes a request, as its key says."""

    owner_id: str
    owner_name: str
    user_id: str
    key_id: str
    scopes: frozenset[str]

    def need(self, scope: str) -> None:
        """Raise Forbidden unless the key has *scope*; ``admin`` has them all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope!r}; make one with: bakehouse keys create --scope {scope}")
