"""The command line: which commands there are, and how each of them ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import bakehouse
from bakehouse.cli import database, deploy, doctor, keys, models, options, resources, run, server
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.remote import RemoteError, field_lines, refused
from bakehouse.core.errors import BakehouseError
from bakehouse.engine.errors import EngineError, EngineLost

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
    try:
        app(args=None if arguments is None else list(arguments), prog_name=app.info.name)
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            raise  # a fault of ours: the traceback is what helps
        _end(failure.message, failure.hint, failure.status)


def _failure(error: Exception) -> Failure | None:
    """What to tell the user about *error*; None for one that no user can put right."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, BakehouseError):
        return Failure(error.detail, Exit.UNREACHABLE if error.status == 503 else Exit.USAGE)
    if isinstance(error, EngineError):
        return Failure(error.detail, Exit.FAILED if isinstance(error, EngineLost) else Exit.USAGE)
    if isinstance(error, RemoteError):
        return refused(error.status, str(error))
    client = sys.modules.get("inferencesh")
    return None if client is None else _client_failure(error, client)


def _client_failure(error: Exception, client: ModuleType) -> Failure | None:
    """The SDK's errors. *client* is its module, which only some commands load."""
    if isinstance(error, client.APIError):
        return refused(error.status_code, field_lines(str(error.detail), map(_as_dict, error.errors)))
    if isinstance(error, client.ConnectionFailed | client.StreamInterrupted):
        return Failure(str(error), Exit.UNREACHABLE)
    return Failure(str(error), Exit.FAILED) if isinstance(error, client.InferenceError) else None


def _as_dict(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else vars(item)


def _end(message: str, hint: str, status: Exit) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        console.print(Text(hint))
    sys.exit(status)
