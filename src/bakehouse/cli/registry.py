"""``bakery inferlet publish | search | info``: programs on a server, which is their registry.

`bakehouse serve` takes sources, builds them, and has programs as apps. `pie serve` has neither builds nor apps: it is
sent what was built here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output

if TYPE_CHECKING:
    from inferlet.client import Client

app = typer.Typer(help="Programs on a server.", no_args_is_help=True)

_CATEGORY = "inferlet"


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The program's folder.")] = Path(),
    namespace: Annotated[str | None, typer.Option(help="The owner it belongs to.  \\[default: your own]")] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Check a program and put it on a server.

    `bakehouse serve` gets its sources and builds them; `pie serve`, which builds nothing, gets what is built here.
    """
    from bakehouse.cli.deploy import deploy
    from bakehouse.inferlets import bakery

    bakery.check(folder)
    if _has_apps(url, key, home):
        deploy(folder, namespace, url, key, home, json)
    else:
        _install(folder, namespace, url, key, home, Output(json))


def _install(
    folder: Path, namespace: str | None, url: str | None, key: str | None, home: Path | None, output: Output
) -> None:
    """Build it here and install it there, in the namespace that the key has. Raises Failure."""
    from bakehouse.cli.baking import bake
    from bakehouse.cli.pie.talking import talk

    with tempfile.TemporaryDirectory(prefix="bakery-") as temp:
        built = bake(folder, Path(temp) / "program.wasm", home, output)

        async def work(client: Client) -> str:
            own = (await client.hello())["username"]
            if namespace not in (None, own):
                raise Failure(f"--namespace {namespace}: this key publishes to the namespace {own!r}")
            return f"{own}/{await client.install(built.path.read_bytes(), built.manifest_text)}"

        ref = talk(url, key, home, work)
    output.result({"ref": ref}, lambda console: console.print(ref, markup=False))


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

    if not _has_apps(url, key, home):
        _search_installed(term, limit, url, key, home, Output(json))
        return
    wanted = [{"field": "category", "operator": "eq", "value": _CATEGORY}]
    with open_remote(url, key, home) as remote:
        found = remote.all("/apps/list", limit, search=term or None, filters=wanted)
    Output(json).rows(
        found,
        ["PROGRAM", "VISIBILITY", "UPDATED", "DESCRIPTION"],
        lambda each: (each["ref"], each["visibility"], each["updated_at"][:16], each["description"]),
    )


def _search_installed(
    term: str, limit: int, url: str | None, key: str | None, home: Path | None, output: Output
) -> None:
    from bakehouse.cli.pie.talking import talk

    found = talk(url, key, home, lambda client: client.programs())
    fitting = [row for row in found if term.lower() in f"{row['program']} {row['description']}".lower()]
    output.rows(fitting[:limit], ["PROGRAM", "DESCRIPTION"], lambda row: (row["program"], row["description"]))


@app.command()
def info(
    program: Annotated[str, typer.Argument(help="namespace/name, or name alone for your own.")],
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """One program: its version and what it takes."""
    if _has_apps(url, key, home):
        found, title, schema = _app_info(program, url, key, home)
    else:
        found, title, schema = _installed_info(program, url, key, home)
    Output(json).result(found, lambda console: _draw(console, title, found["description"], schema))


def _app_info(
    program: str, url: str | None, key: str | None, home: Path | None
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """What there is to know, a first line, the schema of its input. Raises Failure for an app of another kind."""
    from bakehouse.cli.remote import open_remote
    from bakehouse.cli.resources import find_app

    with open_remote(url, key, home) as remote:
        found = find_app(remote, program)
    if found["category"] != _CATEGORY:
        raise Failure(f"{found['ref']} is an app, no inferlet; `bakehouse apps show {found['ref']}` shows it")
    version = found.get("version") or {}
    title = f"{found['ref']}@{version.get('label') or version.get('short_id') or '?'}  {found['visibility']}"
    return found, title, version.get("input_schema") or {}


def _installed_info(
    program: str, url: str | None, key: str | None, home: Path | None
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    from bakehouse.cli.pie.talking import talk

    async def work(client: Client) -> dict[str, Any]:
        # A namespace is its owner's name, and a key sees that owner's programs alone.
        own = f"{(await client.hello())['username']}/"
        return await client.program(program.removeprefix(own))

    found = talk(url, key, home, work)
    return found, found["program"], found["input_schema"]


def _has_apps(url: str | None, key: str | None, home: Path | None) -> bool:
    """Whether the server that the options name is more than `pie serve`. Raises RemoteError, Failure."""
    from bakehouse.cli.endpoint import find_server
    from bakehouse.cli.remote import Remote

    address, secret = find_server(url, key, home)
    with Remote(address, secret or "none") as remote:
        return bool(remote.call("GET", "/ready").get("apps", True))


def _draw(console: Console, title: str, description: str, schema: dict[str, Any]) -> None:
    lines = [title, *([description] if description else [])]
    required = schema.get("required", [])
    for name, said in schema.get("properties", {}).items():
        kind = said.get("type", "any") + ("" if name in required else ", optional")
        lines.append(f"  --{name}  {kind}  {said.get('description', '')}".rstrip())
    console.print("\n".join(lines), markup=False)
