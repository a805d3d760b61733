"""``bakehouse deploy``: pack a folder, make a version of it, show its build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from infsh._deploy import DeployError, package_files
from infsh._deploy import deploy as deploy_folder
from rich.console import Console

from bakehouse.cli import options
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.output import Output
from bakehouse.cli.remote import open_remote
from bakehouse.cli.watch import Watch


def deploy(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder of an app (inf.yml, inference.py) or an inferlet (Pie.toml)."),
    ],
    namespace: Annotated[str | None, typer.Option(help="The owner it belongs to.  \\[default: your own]")] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Deploy an app: upload the folder, build it on the server, and make it what `latest` means."""
    output = Output(json)
    _check(folder)
    with open_remote(url, key, home) as remote, Watch(output.err, quiet=json) as watch:
        try:
            done = deploy_folder(folder, remote, watch.show, namespace)
        except DeployError as error:
            raise Failure(f"{folder}: {error}", Exit.FAILED) from error
    for message in done["messages"]:
        output.say(f"{message.get('level', 'note')}: {message.get('message')}", "yellow")
    output.result(done, lambda console: _draw(console, done))


def _check(folder: Path) -> None:
    """A folder that is no app is a wrong command; only what happens to a real one is a failed deploy."""
    try:
        package_files(folder)
    except DeployError as error:
        raise Failure(str(error)) from error


def _draw(console: Console, app: dict[str, Any]) -> None:
    console.print(f"{app['ref']}@{app['version']['short_id']}", markup=False)
