"""What belongs to the caller: itself, its API keys, its secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.api.common.body import Body, Text, read_body
from bakehouse.api.common.envelope import reply
from bakehouse.api.common.lists import ListBody, page_data, read_list
from bakehouse.api.common.openapi import document, page_of
from bakehouse.api.common.services import services_of
from bakehouse.core.clock import rfc3339
from bakehouse.core.errors import Invalid
from bakehouse.core.identity import Key
from bakehouse.core.ids import short_id
from bakehouse.service.lists import ListQuery, Page
from bakehouse.service.secrets import SecretInfo

router = APIRouter(tags=["account"])


# ---- the caller -----------------------------------------------------------------------------------------------
class Me(BaseModel):
    """Who the key is: a user of a team; the team's name is the namespace of its apps."""

    user: dict[str, Any]
    team: dict[str, Any]
    key: dict[str, Any]
    webhook_secret: str = Field(description="Verifies the signatures of webhooks (Standard Webhooks). Needs `admin`.")


@router.get("/me", **document("me", "Who the key is", data=Me))
async def me(request: Request) -> Response:
    who = await caller(request)
    admin = "admin" in who.scopes
    data = {
        "user": {"id": who.user_id, "short_id": short_id(who.user_id)},
        "team": {"id": who.owner_id, "username": who.owner_name, "name": who.owner_name},
        "key": {"id": who.key_id, "scopes": sorted(who.scopes)},
        "webhook_secret": services_of(request).webhook_secret(who.owner_id) if admin else "",
    }
    return reply(request, data)


# ---- API keys -------------------------------------------------------------------------------------------------
class NewKeyBody(Body):
    """A key to make."""

    name: Text = Field(min_length=1, max_length=200)
    scopes: list[Literal["run", "deploy", "admin"]] | None = Field(None, description="``run`` alone when absent.")
    expires_at: AwareDatetime | None = Field(None, strict=False, description="RFC 3339; never when absent.")


class KeyShape(BaseModel):
    """An API key; ``key`` is its text, which is shown once, when it is made."""

    id: str
    created_at: str
    name: str
    prefix: str
    scopes: list[str]
    last_used_at: str | None
    expires_at: str | None
    key: str | None = None


def _key_shape(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "created_at": rfc3339(key.created_at),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "last_used_at": rfc3339(key.last_used_at) if key.last_used_at is not None else None,
        "expires_at": rfc3339(key.expires_at) if key.expires_at is not None else None,
    }


@router.post(
    "/apikeys/list", **document("listApiKeys", "The team's keys", data=page_of(KeyShape), body=ListBody, errors=(403,))
)
async def list_keys(request: Request) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    page = _page(await services_of(request).keys.list_keys(who), wanted, "id")
    return reply(request, page_data(page, _key_shape, wanted.limit), messages=messages)


@router.post(
    "/apikeys",
    **document(
        "createApiKey", "Make a key; its text is in this answer only", data=KeyShape, body=NewKeyBody,
        body_required=True, errors=(403,),
    ),
)  # fmt: skip
async def create_key(request: Request) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, NewKeyBody)
    made = await services_of(request).keys.create(who, body.name, body.scopes or ["run"], _micros(body.expires_at))
    return reply(request, {**_key_shape(made.key), "key": made.text}, messages=messages)


@router.delete(
    "/apikeys/{key_id}",
    **document("revokeApiKey", "End a key at once", data={"type": "object"}, errors=(403, 404)),
)
async def revoke_key(request: Request, key_id: str) -> Response:
    await services_of(request).keys.revoke(await caller(request), key_id)
    return reply(request, {"id": key_id, "deleted": True})


# ---- secrets --------------------------------------------------------------------------------------------------
class NewSecret(Body):
    """A secret to keep."""

    key: Text = Field(min_length=1, max_length=128, description="The name of the environment variable.")
    value: Text = Field(min_length=1, max_length=64 * 1024)
    description: Text | None = Field(None, max_length=1000)


class ChangedSecret(Body):
    """What to change; absent fields stay as they are."""

    value: Text | None = Field(None, min_length=1, max_length=64 * 1024)
    description: Text | None = Field(None, max_length=1000)


class SecretShape(BaseModel):
    """A secret; its value is never shown."""

    id: str
    key: str
    masked_value: str
    description: str
    scope: str
    updated_at: str


def _secret_shape(secret: SecretInfo) -> dict[str, Any]:
    return {
        "id": secret.key,
        "key": secret.key,
        "masked_value": f"****{secret.hint}",
        "description": secret.description,
        "scope": "team",
        "updated_at": rfc3339(secret.updated_at),
    }


@router.post(
    "/secrets/list",
    **document("listSecrets", "The team's secrets", data=page_of(SecretShape), body=ListBody, errors=(403,)),
)
async def list_secrets(request: Request) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    page = _page(await services_of(request).secrets.list_secrets(who), wanted, "key")
    return reply(request, page_data(page, _secret_shape, wanted.limit), messages=messages)


@router.post(
    "/secrets",
    **document(
        "createSecret", "Keep a secret", data=SecretShape, body=NewSecret, body_required=True, errors=(403, 409)
    ),
)
async def create_secret(request: Request) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, NewSecret)
    secret = await services_of(request).secrets.create(who, body.key, body.value, body.description or "")
    return reply(request, _secret_shape(secret), messages=messages)


@router.put(
    "/secrets/{key}",
    **document("changeSecret", "Change a secret", data=SecretShape, body=ChangedSecret, errors=(403, 404)),
)
async def change_secret(request: Request, key: str) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, ChangedSecret)
    secret = await services_of(request).secrets.change(who, key, body.value, body.description)
    return reply(request, _secret_shape(secret), messages=messages)


@router.delete(
    "/secrets/{key}", **document("deleteSecret", "Forget a secret", data={"type": "object"}, errors=(403, 404))
)
async def delete_secret(request: Request, key: str) -> Response:
    await services_of(request).secrets.delete(await caller(request), key)
    return reply(request, {"key": key, "deleted": True})


# ---- short lists ----------------------------------------------------------------------------------------------
def _page(items: list[Any], wanted: ListQuery, name: str) -> Page:
    """One page of a list that is short enough to be held whole; the cursor is the *name* of the last item before.

    Raises Invalid for what such a list does not offer.
    """
    if wanted.filters or wanted.sort:
        raise Invalid.at("/filters" if wanted.filters else "/sort", "is not offered for this list")
    if wanted.search:
        term = wanted.search.lower()
        items = [item for item in items if term in (getattr(item, "name", "") or getattr(item, name)).lower()]
    names = [getattr(item, name) for item in items]
    if wanted.cursor is not None and wanted.cursor not in names:
        raise Invalid.at("/cursor", "is not a cursor of this list")
    at = names.index(wanted.cursor) + 1 if wanted.cursor is not None else 0
    if wanted.direction == "prev":
        start, end = max(0, at - 1 - wanted.limit), max(0, at - 1)
    else:
        start, end = at, at + wanted.limit
    part = items[start:end]
    return Page(
        part,
        next_cursor=names[start + len(part) - 1] if part and start + len(part) < len(items) else None,
        prev_cursor=names[start] if part and start > 0 else None,
        total=len(items),
    )


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1_000_000)
