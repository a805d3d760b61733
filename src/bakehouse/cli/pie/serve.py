"""``pie serve``: the server with engine and inferlets, and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.pie.models import served
from bakehouse.cli.server import settings_for


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.  \\[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.  \\[default: 8787]")] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no key. Only on an address of this machine alone.")
    ] = False,
    dummy: Annotated[
        bool, typer.Option("--dummy", help="An engine without weights: it answers nonsense, at once.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model of `pie model list`; may be repeated.  \\[default: all]"),
    ] = None,
    allow_public: Annotated[
        bool | None, typer.Option("--allow-public", help="Allow an address that other machines can reach.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The same as --log-level debug.")] = False,
    monitor: Annotated[
        bool, typer.Option("--monitor", "-m", help="Show what runs on stderr, a line when something has changed.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    home: options.Home = None,
    config: options.Config = None,
) -> None:
    """Serve programs to clients until it is told to stop (Ctrl-C or SIGTERM)."""
    if verbose and log_level is not None:
        raise Failure("--verbose and --log-level: give one of them")
    level = "debug" if verbose else log_level
    settings = settings_for(home, config, host=host, port=port, allow_public=allow_public, log_level=level)
    specs = served(settings.home, model or [], dummy)
    # Imported here, because it loads the whole server.
    from bakehouse.wiring.pie import Wanted
    from bakehouse.wiring.pie import serve as run_server

    wanted = Wanted(no_auth=no_auth, new_models=not model and not dummy, monitored=monitor)
    raise typer.Exit(run_server(settings, specs, wanted))
