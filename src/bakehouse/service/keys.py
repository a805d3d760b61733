"""API keys: made once, kept as hashes, looked up on every call."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from bakehouse.core.clock import SECOND, Clock
from bakehouse.core.errors import Invalid, NotFound, Unauthorized
from bakehouse.core.identity import SCOPES, Caller, Key
from bakehouse.core.ids import new_id
from bakehouse.core.refs import RESERVED_NAMESPACES, check_name
from bakehouse.store.base import Store

PREFIX = "inf_"
FIRST_OWNER = "local"
CACHE_SECONDS = 2.0
CACHE_SIZE = 4096

_SHAPE = re.compile(r"inf_[A-Za-z0-9_-]{43}", re.ASCII)
_UNKNOWN = "this API key is not known, has expired or was revoked"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment when its text is known."""

    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class _Cached:
    digest: str
    caller: Caller
    until: float


class Keys:
    """Keys and who they speak for. A caller is remembered for two seconds, so a revocation by another process
    holds after two seconds, one by this process at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, _Cached] = {}

    async def authenticate(self, text: str) -> Caller:
        """Who the key *text* is. Raises Unauthorized."""
        if not _SHAPE.fullmatch(text):
            raise Unauthorized(_UNKNOWN)
        digest = _digest(text)
        # Entries are found by half of the digest and then compared whole in constant time; what could be learnt
        # from the time of a look-up is about a hash that nobody can steer.
        slot = digest[:32]
        cached = self._cache.get(slot)
        if cached is not None and cached.until > self._clock.monotonic() and hmac.compare_digest(cached.digest, digest):
            return cached.caller
        caller = await self._store.caller_for(digest, self._clock.now())
        if caller is None:
            self._cache.pop(slot, None)
            raise Unauthorized(_UNKNOWN)
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[slot] = _Cached(digest, caller, self._clock.monotonic() + CACHE_SECONDS)
        return caller

    async def create(
        self, caller: Caller, name: str, scopes: Sequence[str] = ("run",), expires_at: int | None = None
    ) -> NewKey:
        """A new key of the caller's owner. Needs ``admin``. Raises Invalid for an unknown scope or a past expiry."""
        caller.need("admin")
        now = self._clock.now()
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise Invalid.at("/scopes", f"must be some of {', '.join(SCOPES)}")
        if expires_at is not None and expires_at <= now:
            raise Invalid.at("/expires_at", "must be in the future")
        return await self._make(caller.owner_id, caller.user_id, name, tuple(dict.fromkeys(scopes)), expires_at)

    async def create_for(
        self, owner: str, name: str, scopes: Sequence[str], user: str | None = None, *, seconds: float | None = None
    ) -> NewKey:
        """A key for the owner called *owner*, made if missing: for operators on the machine, no caller is asked.

        It is good for *seconds*, None for ever.
        """
        check_name(owner, "owner")
        if owner in RESERVED_NAMESPACES:
            raise Invalid.at("/owner", f"the namespace {owner!r} belongs to the platform")
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise Invalid.at("/scopes", f"must be some of {', '.join(SCOPES)}")
        now = self._clock.now()
        row = await self._store.ensure_owner(owner, now)
        person = await self._store.ensure_user(row.id, user or owner, now)
        expires_at = None if seconds is None else now + int(seconds * SECOND)
        return await self._make(row.id, person.id, name, tuple(dict.fromkeys(scopes)), expires_at)

    async def first_key(self) -> NewKey | None:
        """The first key of a new server, admin of owner ``local``; None when there are keys already."""
        if await self._store.has_keys():
            return None
        return await self.create_for(FIRST_OWNER, "first key", SCOPES)

    async def operator(self) -> Caller:
        """Whoever may do without a key: all scopes of the owner ``local``, who is made if missing."""
        owner = await self._store.ensure_owner(FIRST_OWNER, self._clock.now())
        return Caller(owner.id, owner.name, owner.name, "none", frozenset(SCOPES))

    async def list_keys(self, caller: Caller) -> list[Key]:
        """Every key of the caller's owner, revoked ones excluded. Needs ``admin``."""
        caller.need("admin")
        return [key for key in await self._store.list_keys(caller.owner_id) if key.revoked_at is None]

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """End a key of the caller's owner. Needs ``admin``. Raises NotFound."""
        caller.need("admin")
        if not any(key.id == key_id for key in await self.list_keys(caller)):
            raise NotFound(f"no API key {key_id!r}")
        await self._store.revoke_key(key_id, caller.owner_id, self._clock.now())
        self.forget()

    def forget(self) -> None:
        """Drop every remembered caller."""
        self._cache.clear()

    async def _make(
        self, owner_id: str, user_id: str, name: str, scopes: tuple[str, ...], expires_at: int | None
    ) -> NewKey:
        text = PREFIX + secrets.token_urlsafe(32)
        key = Key(
            id=new_id("key"),
            owner_id=owner_id,
            user_id=user_id,
            name=name,
            prefix=text[: len(PREFIX) + 6],
            hash=_digest(text),
            scopes=scopes,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        await self._store.create_key(key)
        return NewKey(key, text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
