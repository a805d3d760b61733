"""The ``bakery`` command: make programs that run beside the model, and build them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bakehouse.cli import options, registry
from bakehouse.cli.baking import bake
from bakehouse.cli.ending import run_commands
from bakehouse.cli.output import Output

app = typer.Typer(
    name="bakery",
    help="Build inferlets: programs that run beside the model, in a sandbox.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(registry.app, name="inferlet")


@app.callback()
def _bakery() -> None:
    pass


@app.command()
def build(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="The program's folder, or its Python file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write.  \\[default: NAME.wasm]", dir_okay=False)
    ] = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Build a program into one file that `pie run --path` and a server take."""
    output = Output(json)
    built = bake(source, out, home, output)
    result = {
        "path": str(built.path),
        "program": built.manifest.ref,
        "digest": built.digest,
        "size": built.size,
        "seconds": round(built.seconds, 3),
        "cached": built.cached,
        "shared": built.shared,
        "files": list(built.files),
    }
    output.result(result, lambda console: _draw(console, result))


def _draw(console: Console, built: dict[str, Any]) -> None:
    how = "from the cache" if built["cached"] else "built"
    size = built["size"] / (1 << 20)
    console.print(
        f"{built['path']}: {built['program']}, {size:.1f} MiB, {how} in {built['seconds']:.1f} s", markup=False
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The program's name.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Its folder.  \\[default: ./NAME]")] = None,
    json: options.Json = False,
) -> None:
    """Write a new program that builds and runs as it is."""
    from bakehouse.inferlets import bakery

    folder = out or Path(name)
    files = bakery.create(name, folder)
    result = {"name": name, "folder": str(folder), "files": [str(path) for path in files]}

    def draw(console: Console) -> None:
        console.print("\n".join(result["files"]), markup=False)
        console.print(f"Next: bakery build {folder} -o {name}.wasm", markup=False)

    Output(json).result(result, draw)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    run_commands(app, arguments)
