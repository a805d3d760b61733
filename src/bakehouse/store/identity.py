"""Owners, users, keys and secrets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select, update

from bakehouse.core.errors import NotFound
from bakehouse.core.identity import Caller, Key, Owner, User
from bakehouse.core.ids import new_id
from bakehouse.store.connection import Connection
from bakehouse.store.room import SqlRoom, found
from bakehouse.store.tables import keys, members, owners, secrets, users

_O, _K, _S = owners.c, keys.c, secrets.c
_OWNER = (_O.id, _O.name, _O.created_at)
_CALLER = (
    select(_K.owner_id, _O.name, _K.user_id, _K.id, _K.scopes)
    .join(owners, _O.id == _K.owner_id)
    .where(
        _K.hash == bindparam("hash"),
        _K.revoked_at.is_(None),
        or_(_K.expires_at.is_(None), _K.expires_at > bindparam("now", type_=_K.expires_at.type)),
    )
)
_REVISION = select(_O.secrets_revision).where(_O.id == bindparam("owner_id"))


class IdentityRoom(SqlRoom):
    """The part of the contract about who is who, and their secrets."""

    async def ensure_owner(self, name: str, at: int) -> Owner:
        def ensure(connection: Connection) -> Owner:
            row = {"id": new_id("owner"), "name": name, "created_at": at, "secrets_revision": 0}
            connection.run(self._dialect.insert(owners).values(row).on_conflict_do_nothing(index_elements=[_O.name]))
            return Owner(*found(connection.one(select(*_OWNER).where(_O.name == name)), "owner"))

        return await self._change(ensure)

    async def ensure_user(self, owner_id: str, name: str, at: int) -> User:
        known = (
            select(users)
            .join(members, members.c.user_id == users.c.id)
            .where(members.c.owner_id == owner_id, members.c.name == name)
        )

        def ensure(connection: Connection) -> User:
            found(connection.one(select(_O.id).where(_O.id == owner_id).with_for_update()), f"owner {owner_id!r}")
            row = connection.one(known)
            if row is None:
                row = (new_id("user"), name, at)
                connection.run(insert(users).values(row))
                connection.run(insert(members).values(owner_id=owner_id, name=name, user_id=row[0]))
            return User(*row)

        return await self._change(ensure)

    async def owners(self) -> list[Owner]:
        query = select(*_OWNER).order_by(_O.name)
        return [Owner(*row) for row in await self._read(lambda connection: connection.all(query))]

    async def owner(self, *, id: str | None = None, name: str | None = None) -> Owner:
        query = select(*_OWNER).where(_O.id == id if id is not None else _O.name == name)
        row = await self._read(lambda connection: connection.one(query))
        return Owner(*found(row, f"owner {id or name!r}"))

    # ---- keys -----------------------------------------------------------------------------------------------

    async def create_key(self, key: Key) -> None:
        row = (
            key.id, key.owner_id, key.user_id, key.name, key.prefix, key.hash, " ".join(key.scopes), key.created_at,
            key.expires_at, key.last_used_at, key.revoked_at,
        )  # fmt: skip
        await self._change(lambda connection: connection.run(insert(keys).values(row)))

    async def caller_for(self, key_hash: str, now: int) -> Caller | None:
        row = await self._read_point(lambda connection: connection.one(_CALLER, {"hash": key_hash, "now": now}))
        return _caller_of(row) if row else None

    async def list_keys(self, owner_id: str) -> list[Key]:
        query = select(keys).where(_K.owner_id == owner_id).order_by(_K.id.desc())
        return [_key_of(row) for row in await self._read(lambda connection: connection.all(query))]

    async def revoke_key(self, key_id: str, owner_id: str, at: int) -> None:
        def revoke(connection: Connection) -> None:
            mine = (_K.id == key_id, _K.owner_id == owner_id)
            found(connection.one(select(_K.id).where(*mine)), f"key {key_id!r}")
            connection.run(update(keys).where(*mine, _K.revoked_at.is_(None)).values(revoked_at=at))

        await self._change(revoke)

    async def has_keys(self) -> bool:
        return await self._read(lambda connection: connection.one(select(_K.id).limit(1))) is not None

    # ---- secrets --------------------------------------------------------------------------------------------

    async def put_secret(self, owner_id: str, key: str, ciphertext: bytes, description: str, at: int) -> None:
        row = {
            "owner_id": owner_id, "key": key, "ciphertext": ciphertext, "description": description, "updated_at": at,
        }  # fmt: skip
        upsert = self._dialect.insert(secrets).values(row)
        changed = {name: row[name] for name in ("ciphertext", "description", "updated_at")}
        upsert = upsert.on_conflict_do_update(index_elements=[_S.owner_id, _S.key], set_=changed)

        def put(connection: Connection) -> None:
            _revise(connection, owner_id)
            connection.run(upsert)

        await self._change(put)

    async def secrets(self, owner_id: str) -> list[tuple[str, bytes, str, int]]:
        query = (
            select(_S.key, _S.ciphertext, _S.description, _S.updated_at).where(_S.owner_id == owner_id).order_by(_S.key)
        )
        rows = await self._read(lambda connection: connection.all(query))
        return [(key, bytes(ciphertext), description, at) for key, ciphertext, description, at in rows]

    async def delete_secret(self, owner_id: str, key: str) -> None:
        def remove(connection: Connection) -> None:
            if connection.run(delete(secrets).where(_S.owner_id == owner_id, _S.key == key)) == 0:
                raise NotFound(f"no secret {key!r}")
            _revise(connection, owner_id)

        await self._change(remove)

    async def secrets_revision(self, owner_id: str) -> int:
        row = await self._read_point(lambda connection: connection.one(_REVISION, {"owner_id": owner_id}))
        return int(found(row, f"owner {owner_id!r}")[0])


def _revise(connection: Connection, owner_id: str) -> None:
    """Count a change of the owner's secrets. Raises NotFound."""
    more = update(owners).where(_O.id == owner_id).values(secrets_revision=_O.secrets_revision + 1)
    if connection.run(more) == 0:
        raise NotFound(f"no owner {owner_id!r}")


def _key_of(row: tuple[Any, ...]) -> Key:
    fields: list[Any] = list(row)
    fields[6] = tuple(row[6].split())
    return Key(*fields)


def _caller_of(row: tuple[Any, ...]) -> Caller:
    owner_id, owner_name, user_id, key_id, scopes = row
    return Caller(owner_id, owner_name, user_id, key_id, frozenset(scopes.split()))
