"""``bakehouse serve``: read the settings and hand them to wiring."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.settings import Settings, load_settings


def settings_for(
    home: Path | None = None,
    config: Path | None = None,
    *,
    database: str | None = None,
    assigned: list[str] | None = None,
    **flags: Any,
) -> Settings:
    """The settings that a command was started with. Raises SettingsError, or Failure for a malformed ``--set``."""
    pairs: dict[str, str] = {}
    for pair in assigned or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Failure(f"--set {pair}: write NAME=VALUE, for instance --set prefetch=0")
        pairs[name.strip().replace("-", "_")] = value
    given = {"home": home, "database_url": database, **flags}
    return load_settings(given, assigned=pairs, environ=os.environ, config=config)


def serve(
    home: options.Home = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.  \\[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.  \\[default: 8787]")] = None,
    database: options.Database = None,
    public_url: Annotated[str | None, typer.Option(help="The URL that clients see, behind a proxy.")] = None,
    allow_public: Annotated[
        bool | None, typer.Option("--allow-public", help="Allow an address that other machines can reach.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    assigned: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be repeated.")
    ] = None,
    config: options.Config = None,
) -> None:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM); running tasks are finished or handed back."""
    settings = settings_for(
        home,
        config,
        database=database,
        assigned=assigned,
        host=host,
        port=port,
        public_url=public_url,
        allow_public=allow_public,
        log_format=log_format,
        log_level=log_level,
    )
    # Imported here, because it loads the whole server, which no other command needs.
    from bakehouse.wiring.serve import serve as run_server

    raise typer.Exit(run_server(settings))
