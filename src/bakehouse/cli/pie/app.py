"""The command line ``pie``: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

import bakehouse
from bakehouse.cli.pie import run, serve

app = typer.Typer(
    name="pie",
    help="Run programs beside the model: in this process, or on a server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pie {bakehouse.__version__}")
        raise typer.Exit


@app.callback()
def _pie(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(run.run)
app.command()(serve.serve)
