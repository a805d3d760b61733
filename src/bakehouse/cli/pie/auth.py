"""``pie auth``: who may use the server of this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.core.clock import SystemClock
from bakehouse.core.errors import NotFound
from bakehouse.core.identity import Key

if TYPE_CHECKING:
    from bakehouse.service.keys import NewKey
    from bakehouse.store.base import Store

T = TypeVar("T")

app = typer.Typer(help="Users of this machine's server, and their keys.", no_args_is_help=True)

#: A user runs programs and installs them.
SCOPES = ("run", "deploy")

User = Annotated[str, typer.Argument(metavar="USER", help="A user, who is the owner of what it installs and runs.")]


@app.command()
def add(
    user: User,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "pie",
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Make a key for a user, who may be new, and show it; it cannot be shown again."""
    output = Output(json)

    async def work(store: Store) -> NewKey:
        from bakehouse.service.keys import Keys

        return await Keys(store, SystemClock()).create_for(user, name, SCOPES)

    made = _on_store(home, config, database, work)
    from bakehouse.cli.keys import shown

    output.say("This is the only time that the key is shown:")
    output.result(
        {"user": user, **shown(made.key), "key": made.text}, lambda console: console.print(made.text, markup=False)
    )


@app.command("list")
def list_users(
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Show the users and how many keys of theirs are good."""

    async def work(store: Store) -> list[dict[str, object]]:
        now = SystemClock().now()
        rows = []
        for owner in await store.owners():
            keys = await store.list_keys(owner.id)
            rows.append({"user": owner.name, "keys": sum(_good(key, now) for key in keys)})
        return [row for row in rows if row["keys"]]

    found = _on_store(home, config, database, work)
    Output(json).rows(found, ["USER", "KEYS"], lambda row: (row["user"], row["keys"]))


@app.command()
def remove(
    user: User,
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """End all keys of a user; a running server stops accepting them within two seconds. What it installed stays."""
    clock = SystemClock()

    async def work(store: Store) -> int:
        owner = await store.owner(name=user)
        good = [key for key in await store.list_keys(owner.id) if _good(key, clock.now())]
        for key in good:
            await store.revoke_key(key.id, owner.id, clock.now())
        return len(good)

    try:
        count = _on_store(home, config, database, work)
    except NotFound:
        raise Failure(f"there is no user {user!r}", hint="`pie auth list` shows them.") from None
    Output(json).result(
        {"user": user, "revoked": count}, lambda console: console.print(f"revoked {count} keys of {user}")
    )


def _on_store(home: Path | None, config: Path | None, database: str | None, work: Callable[[Store], Awaitable[T]]) -> T:
    # Imported here, because it loads SQLAlchemy, which the other commands of `pie` do without.
    from bakehouse.cli.local import on_store

    return on_store(settings_for(home, config, database=database), work)


def _good(key: Key, now: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
