"""The command line ``pie``: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

import bakehouse
from bakehouse.cli.pie import auth, config, doctor, model, remote, run, serve
from bakehouse.cli.pie.words import WithArguments

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


app.command(cls=WithArguments)(run.run)
app.command()(serve.serve)
app.command()(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(model.app, name="model")
app.add_typer(auth.app, name="auth")
app.command()(remote.install)
app.command()(remote.uninstall)
app.command()(remote.programs)
app.command(cls=WithArguments)(remote.submit)
app.command("list")(remote.processes)
app.command()(remote.attach)
app.command()(remote.terminate)
