"""``bakehouse db``: the database of a data directory."""

from __future__ import annotations

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Exit
from bakehouse.cli.local import on_store
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.store.base import Store

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command()
def check(
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Look for contradictions in it; the exit status is 1 when there are any."""
    wrong = on_store(settings_for(home, config, database=database), lambda store: store.check_integrity())
    Output(json).result(wrong, lambda console: console.print("\n".join(wrong) or "nothing is wrong", markup=False))
    if wrong:
        raise typer.Exit(Exit.FAILED)


@app.command()
def migrate(
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Bring its schema up to date, as `serve` does at its start."""
    settings = settings_for(home, config, database=database)

    async def nothing_more(_: Store) -> None:
        return None

    on_store(settings, nothing_more)
    Output(json).result({"migrated": True}, lambda console: console.print("the schema is up to date"))
