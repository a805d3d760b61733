"""``bakehouse db``: the database of a data directory."""

from __future__ import annotations

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Exit, Failure
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
def backup(
    home: options.Home = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Copy a SQLite database as it is at this moment, beside it; a server may run meanwhile."""
    # Imported here, because it loads SQLAlchemy, which most commands do without.
    from bakehouse.store.choice import driver_for

    settings = settings_for(home, config, database=database)
    if settings.database_url is None and not (settings.home / "bakehouse.db").is_file():
        raise Failure(f"there is no database in {settings.home}")
    path = driver_for(settings.database).back_up("manual")
    if path is None:
        raise Failure("this database is not a file of ours", hint="For PostgreSQL use pg_dump.")
    Output(json).result({"path": path}, lambda console: console.print(path, markup=False))


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
