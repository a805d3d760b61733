"""Secrets of an owner: kept encrypted, handed to the owner's apps as environment variables, never shown again.

AES-256-GCM with a key that is derived from the server's secret file, which stands outside the database. Owner and
name are authenticated with each value, so that a row which is copied to another owner cannot be read there.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bakehouse.core.app import Version
from bakehouse.core.clock import Clock
from bakehouse.core.errors import Conflict, Invalid, NotFound, Unavailable
from bakehouse.core.identity import Caller
from bakehouse.service.keyfile import ServerSecret
from bakehouse.store.base import Store

MAX_VALUE = 64 * 1024
"""Bytes; a longer one would not fit into an environment beside others."""
_NONCE = 12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_CACHE_SECONDS = 1.0
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be told of a secret; ``hint`` is its last characters, if it is long enough to spare some."""

    key: str
    description: str
    hint: str
    updated_at: int


class Secrets:
    """See the module's text. ``revision`` and ``missing`` may lag another process by a second."""

    def __init__(self, store: Store, clock: Clock, secret: ServerSecret) -> None:
        self._store = store
        self._clock = clock
        self._cipher = AESGCM(secret.key("secrets"))
        self._known: dict[str, tuple[float, int, frozenset[str]]] = {}

    async def list_secrets(self, caller: Caller) -> list[SecretInfo]:
        """The owner's secrets by name, without their values. Needs ``deploy``."""
        caller.need("deploy")
        return [
            SecretInfo(key, description, _hint(self._open(caller.owner_id, key, sealed)), updated_at)
            for key, sealed, description, updated_at in await self._store.secrets(caller.owner_id)
        ]

    async def create(self, caller: Caller, key: str, value: str, description: str = "") -> SecretInfo:
        """Keep a new secret. Needs ``deploy``. Conflict when it is there already."""
        caller.need("deploy")
        if any(row[0] == key for row in await self._store.secrets(caller.owner_id)):
            raise Conflict(f"there is a secret {key!r}; change it with PUT /secrets/{key}", code="already_exists")
        return await self._put(caller, key, value, description)

    async def change(self, caller: Caller, key: str, value: str | None, description: str | None) -> SecretInfo:
        """Replace the value, the description or both of a secret. Needs ``deploy``. NotFound."""
        caller.need("deploy")
        for known, sealed, text, _ in await self._store.secrets(caller.owner_id):
            if known == key:
                old = self._open(caller.owner_id, key, sealed) if value is None else value
                return await self._put(caller, key, old, text if description is None else description)
        raise NotFound(f"no secret {key!r}; make it with POST /secrets")

    async def delete(self, caller: Caller, key: str) -> None:
        """Forget a secret. Needs ``deploy``. NotFound."""
        caller.need("deploy")
        await self._store.delete_secret(caller.owner_id, key)
        self._known.pop(caller.owner_id, None)

    async def values(self, owner_id: str, keys: set[str]) -> dict[str, str]:
        """Those of *keys* that the owner has, in clear, for an instance's environment."""
        return {
            key: self._open(owner_id, key, sealed)
            for key, sealed, _, _ in await self._store.secrets(owner_id)
            if key in keys
        }

    async def revision(self, owner_id: str) -> int:
        """A number that grows with every change of the owner's secrets."""
        return (await self._state(owner_id))[1]

    async def missing(self, owner_id: str, version: Version) -> list[dict[str, Any]]:
        """What the owner must set before *version* can run, as the fields of a RequirementsNotMet; [] is nothing."""
        wanted = [secret for secret in version.manifest.secrets if not secret.optional]
        if not wanted:
            return []
        known = (await self._state(owner_id))[2]
        return [_requirement(secret.key, secret.description) for secret in wanted if secret.key not in known]

    async def _put(self, caller: Caller, key: str, value: str, description: str) -> SecretInfo:
        if not _NAME.fullmatch(key):
            raise Invalid.at("/key", "must be the name of an environment variable: letters, digits and '_'")
        if key.upper().startswith("BAKEHOUSE_"):
            raise Invalid.at("/key", "names that begin with BAKEHOUSE_ belong to the server")
        if not value or "\x00" in value or len(value.encode()) > MAX_VALUE:
            raise Invalid.at("/value", f"must be 1 to {MAX_VALUE} bytes without the character NUL")
        now = self._clock.now()
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, value.encode(), _bound(caller.owner_id, key))
        await self._store.put_secret(caller.owner_id, key, sealed, description, now)
        self._known.pop(caller.owner_id, None)
        return SecretInfo(key, description, _hint(value), now)

    def _open(self, owner_id: str, key: str, sealed: bytes) -> str:
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(owner_id, key)).decode()
        except InvalidTag:
            raise Unavailable(
                f"the secret {key!r} cannot be read with this server's key file; set it again", retry_after=60
            ) from None

    async def _state(self, owner_id: str) -> tuple[float, int, frozenset[str]]:
        now = self._clock.monotonic()
        known = self._known.get(owner_id)
        if known is None or known[0] <= now:
            # The number first: names that are newer than it do no harm, the other way round they would stay old.
            revision = await self._store.secrets_revision(owner_id)
            names = frozenset(row[0] for row in await self._store.secrets(owner_id))
            known = (now + _CACHE_SECONDS, revision, names)
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[owner_id] = known
        return known


def _bound(owner_id: str, key: str) -> bytes:
    return f"{owner_id}/{key}".encode()


def _hint(value: str) -> str:
    return value[-4:] if len(value) >= 16 else ""


def _requirement(key: str, description: str) -> dict[str, Any]:
    about = f" ({description})" if description else ""
    return {
        "type": "secret",
        "key": key,
        "message": f"the app needs the secret {key}{about}; set it with: bakehouse secrets set {key}",
        "action": {
            "type": "add_secret",
            "secrets": [key],
            "instructions": f"bakehouse secrets set {key}, or POST /secrets with key and value",
        },
    }
