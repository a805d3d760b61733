"""The command line: which commands there are, and how each of them ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import bakehouse
from bakehouse.cli import server
from bakehouse.cli.failures import Exit, Failure
from bakehouse.core.errors import BakehouseError

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status. Never shows a traceback for what a user can put right."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name=app.info.name)
    except Failure as failure:
        _end(failure.message, failure.hint, failure.status)
    except BakehouseError as error:
        _end(error.detail, "", Exit.UNREACHABLE if error.status == 503 else Exit.USAGE)
    except BrokenPipeError:
        # The reader has gone, as in `bakehouse logs ... | head`; the interpreter must not try to flush at exit.
        sys.stderr.close()
        sys.exit(Exit.OK)


def _end(message: str, hint: str, status: Exit) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        console.print(Text(hint))
    sys.exit(status)
