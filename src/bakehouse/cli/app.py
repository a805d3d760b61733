"""The command line ``bakehouse``: which commands there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import bakehouse
from bakehouse.cli import database, deploy, doctor, keys, models, options, resources, run, server
from bakehouse.cli.ending import run_commands

app = typer.Typer(
    name="bakehouse",
    help="Run AI apps as durable, streaming tasks on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bakehouse {bakehouse.__version__}")
        raise typer.Exit


@app.callback()
def _bakehouse(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(server.serve)
app.command()(deploy.deploy)
app.command()(run.run)
app.add_typer(resources.apps, name="apps")
app.add_typer(resources.tasks, name="tasks")
app.command()(run.logs)
app.command()(resources.cancel)
app.add_typer(resources.secrets, name="secrets")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")
app.add_typer(models.app, name="models")
app.command()(doctor.doctor)


@app.command()
def demo(
    home: options.Home = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data directory in place.")] = False,
) -> None:
    """Start a server, deploy the example apps, run one on a real file, and stop."""
    from bakehouse.cli.demo import demo as show

    raise typer.Exit(show(home, keep))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status. Never shows a traceback for what a user can put right."""
    run_commands(app, arguments)
