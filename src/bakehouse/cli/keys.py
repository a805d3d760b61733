"""``bakehouse keys``: API keys, made and ended on the server's own machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.local import on_store
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.core.clock import SystemClock, rfc3339
from bakehouse.core.errors import NotFound
from bakehouse.core.identity import SCOPES, Key
from bakehouse.service.keys import FIRST_OWNER, Keys, NewKey
from bakehouse.settings.units import parse_duration
from bakehouse.store.base import Store

app = typer.Typer(help="API keys of this machine's server; works whether it runs or not.", no_args_is_help=True)


def shown(key: Key) -> dict[str, Any]:
    """What is shown of a key: all but what it is."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at) if key.expires_at else None,
        "revoked": key.revoked_at is not None,
    }


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "key",
    scope: Annotated[list[str] | None, typer.Option(help=f"Some of: {', '.join(SCOPES)}.  \\[default: run]")] = None,
    owner: options.Owner = FIRST_OWNER,
    user: Annotated[str | None, typer.Option(help="The person behind the key.  \\[default: the owner]")] = None,
    expires: Annotated[str | None, typer.Option(help="Good for so long: 12h, 30d.  \\[default: for ever]")] = None,
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Make a key and show it; it cannot be shown again."""
    output = Output(json)
    seconds = None if expires is None else _seconds(expires)

    async def work(store: Store) -> NewKey:
        return await Keys(store, SystemClock()).create_for(owner, name, scope or ["run"], user, seconds=seconds)

    made = on_store(settings_for(home, config, database=database), work)
    output.say("This is the only time that the key is shown:")
    output.result({**shown(made.key), "key": made.text}, lambda console: console.print(made.text, markup=False))


def _seconds(text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as error:
        raise Failure(f"--expires {text}: {error}") from error
    if seconds <= 0:
        raise Failure(f"--expires {text}: must be longer than nothing")
    return seconds


@app.command("list")
def list_keys(
    owner: options.Owner = FIRST_OWNER,
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Show the keys of an owner."""

    async def work(store: Store) -> list[Key]:
        return await store.list_keys((await store.owner(name=owner)).id)

    try:
        found = on_store(settings_for(home, config, database=database), work)
    except NotFound:
        found = []
    Output(json).rows(
        [shown(key) for key in found],
        ["ID", "NAME", "KEY", "SCOPES", "EXPIRES", "STATE"],
        lambda key: (
            key["id"],
            key["name"],
            f"{key['prefix']}...",
            ",".join(key["scopes"]),
            (key["expires_at"] or "never")[:10],
            "revoked" if key["revoked"] else "valid",
        ),
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `bakehouse keys list` shows it.")],
    owner: options.Owner = FIRST_OWNER,
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """End a key; a running server stops accepting it within two seconds."""
    clock = SystemClock()

    async def work(store: Store) -> None:
        keys = await store.list_keys((await store.owner(name=owner)).id)
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise Failure(f"owner {owner!r} has no key {key_id!r}", hint="`bakehouse keys list` shows them.")
        await store.revoke_key(found.id, found.owner_id, clock.now())

    on_store(settings_for(home, config, database=database), work)
    Output(json).result({"id": key_id, "revoked": True}, lambda console: console.print(f"revoked {key_id}"))
