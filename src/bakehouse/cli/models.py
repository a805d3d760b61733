"""``bakehouse models``: the local models of this machine, kept in the data directory."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.engine.check import check_source, is_hub_id
from bakehouse.engine.spec import DEVICES, DTYPES, DUMMY, ModelSpec
from bakehouse.settings.units import parse_size

app = typer.Typer(help="Local models of this machine.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What it is called here.")]


@app.command()
def add(
    name: Name,
    source: Annotated[str, typer.Argument(help="A folder in Hugging Face layout, a hub id, or `dummy`.")],
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(DTYPES)}.")] = "auto",
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "auto",
    kv_memory: Annotated[
        str | None, typer.Option(help="Memory for the KV cache, such as 4GiB.  \\[default: a share of what is free]")
    ] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="The same, as tokens that it holds.")] = None,
    max_context: Annotated[
        int | None, typer.Option(help="Longest context in tokens.  \\[default: the model's]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a model of that name.")] = False,
    home: options.Home = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Look at a model's files, without loading its weights, and keep it under a name."""
    output = Output(json)
    spec = ModelSpec(
        name=name,
        source=_absolute(source),
        dtype=dtype,
        device=device,
        kv_bytes=None if kv_memory is None else _size(kv_memory),
        kv_tokens=kv_tokens,
        max_context=max_context,
    )
    models = recorded(home, config)
    models.path(name)
    architecture = check_source(spec)
    if not architecture:
        output.say(f"{source} is fetched and looked at when it is first loaded")
    replaced = models.path(name).exists()
    path = models.add(spec, replace=replace)
    _tell_server(output, home, config, changed=replaced)
    output.result(
        {**_shown(spec), "architecture": architecture or None, "path": str(path)},
        lambda console: console.print(f"added {name}: {architecture or source}", markup=False),
    )


@app.command("list")
def list_models(home: options.Home = None, config: options.Config = None, json: options.Json = False) -> None:
    """Show the models of this machine."""
    Output(json).rows(
        [_shown(spec) for spec in recorded(home, config).list()],
        ["NAME", "SOURCE", "DTYPE", "DEVICE", "KV", "CONTEXT"],
        lambda it: (
            it["name"],
            it["source"],
            it["dtype"],
            it["device"],
            _budget(it),
            it["max_context"] or "the model's",
        ),
    )


@app.command()
def remove(name: Name, home: options.Home = None, config: options.Config = None, json: options.Json = False) -> None:
    """Forget a model; its files stay."""
    output = Output(json)
    recorded(home, config).remove(name)
    _tell_server(output, home, config, changed=True)
    output.result({"name": name, "removed": True}, lambda console: console.print(f"removed {name}", markup=False))


@app.command()
def bench(
    name: Name,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens that each sequence decodes.")] = 32,
    sequences: Annotated[
        list[int] | None, typer.Option(min=1, help="Sequences at one time; may be repeated.  \\[default: 1, 8, 32]")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prompt in the prefill figure.")] = 512,
    home: options.Home = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Start an engine with one model and measure it: prefill and decode, in tokens per second."""
    # Imported here: it starts a process, which no other of these commands does.
    from bakehouse.cli import modelbench

    output = Output(json)
    spec = recorded(home, config).get(name)
    found = asyncio.run(modelbench.measure(spec, prompt, sequences or [1, 8, 32], tokens, output.say))
    output.result(found, lambda console: modelbench.draw(console, found))


def _tell_server(output: Output, home: Path | None, config: Path | None, *, changed: bool) -> None:
    """Say when the server that runs on the data directory, if one does, takes what was done."""
    from bakehouse.wiring.home import Home

    there = Home(settings_for(home, config).home)
    if not there.running():
        return
    if changed or not there.takes_new_models():
        output.say("the server that runs here takes this when it is started again", "yellow")
    else:
        output.say("the server that runs here loads it now; its log says when it is served", "dim")


def recorded(home: Path | None, config: Path | None) -> Any:
    """The models of the data directory that the options name: `wiring.models.Models`."""
    # Imported here, because `wiring` loads the whole server.
    from bakehouse.wiring.models import Models

    return Models(settings_for(home, config).home)


def _absolute(source: str) -> str:
    if source == DUMMY or is_hub_id(source):
        return source
    return str(Path(source).expanduser().absolute())


def _size(text: str) -> int:
    try:
        return int(parse_size(text))
    except ValueError as error:
        raise Failure(f"--kv-memory {text}: {error}") from error


def _shown(spec: ModelSpec) -> dict[str, Any]:
    told = asdict(spec)
    return {key: told[key] for key in ("name", "source", "dtype", "device", "kv_bytes", "kv_tokens", "max_context")}


def _budget(told: dict[str, Any]) -> str:
    if told["kv_tokens"]:
        return f"{told['kv_tokens']} tokens"
    return f"{told['kv_bytes'] / 2**20:.0f} MiB" if told["kv_bytes"] else "auto"
