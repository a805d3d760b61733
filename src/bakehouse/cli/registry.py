"""``bakery inferlet publish | search | info``: programs on a server, which is their registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output

app = typer.Typer(help="Programs on a server.", no_args_is_help=True)

_CATEGORY = "inferlet"


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The program's folder.")] = Path(),
    namespace: Annotated[str | None, typer.Option(help="The owner it belongs to.  [default: your own]")] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Check a program here, upload its sources, build it on the server, and make it what `latest` means."""
    from bakehouse.cli.deploy import deploy
    from bakehouse.inferlets import bakery

    bakery.check(folder)
    deploy(folder, namespace, url, key, home, json)


@app.command()
def search(
    term: Annotated[str, typer.Argument(help="Part of a name or a description; nothing lists all.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Your programs and the public ones."""
    from bakehouse.cli.remote import open_remote

    wanted = [{"field": "category", "operator": "eq", "value": _CATEGORY}]
    with open_remote(url, key, home) as remote:
        found = remote.all("/apps/list", limit, search=term or None, filters=wanted)
    Output(json).rows(
        found,
        ["PROGRAM", "VISIBILITY", "UPDATED", "DESCRIPTION"],
        lambda each: (each["ref"], each["visibility"], each["updated_at"][:16], each["description"]),
    )


@app.command()
def info(
    program: Annotated[str, typer.Argument(help="namespace/name, or name alone for your own.")],
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """One program: its version and what it takes."""
    from bakehouse.cli.remote import open_remote
    from bakehouse.cli.resources import find_app

    with open_remote(url, key, home) as remote:
        found = find_app(remote, program)
    if found["category"] != _CATEGORY:
        raise Failure(f"{found['ref']} is an app, no inferlet; `bakehouse apps show {found['ref']}` shows it")
    Output(json).result(found, lambda console: _draw(console, found))


def _draw(console: Console, found: dict[str, Any]) -> None:
    version = found.get("version") or {}
    lines = [f"{found['ref']}@{version.get('label') or version.get('short_id') or '?'}  {found['visibility']}"]
    lines += [found["description"]] if found["description"] else []
    schema = version.get("input_schema") or {}
    required = schema.get("required", [])
    for name, said in schema.get("properties", {}).items():
        kind = said.get("type", "any") + ("" if name in required else ", optional")
        lines.append(f"  --{name}  {kind}  {said.get('description', '')}".rstrip())
    console.print("\n".join(lines), markup=False)
