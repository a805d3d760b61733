"""``pie model``: the models that engines of this machine start with, and their files."""

from __future__ import annotations

from typing import Annotated

import typer

from bakehouse.cli import models, options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output
from bakehouse.engine.check import is_hub_id

app = typer.Typer(help="The models of this machine.", no_args_is_help=True)

app.command("list")(models.list_models)
app.command()(models.add)
app.command()(models.remove)


@app.command()
def download(
    source: Annotated[str, typer.Argument(help="A hub id, such as Qwen/Qwen3-0.6B, or the name of a model here.")],
    home: options.Home = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Fetch the files of a model of the hub now; else they are fetched when it is first loaded."""
    hub_id = source if is_hub_id(source) else models.recorded(home, config).get(source).source
    if not is_hub_id(hub_id):
        raise Failure(f"{source} is no model of the hub: there is nothing to download")
    try:
        from bakehouse.engine.runner.torch.load import find_folder
    except ModuleNotFoundError as error:
        raise Failure(f"{error.name} is not installed; pip install 'bakehouse[engine]' brings it") from error
    from bakehouse.engine.spec import ModelSpec

    folder = find_folder(ModelSpec(name="model", source=hub_id))
    Output(json).result(
        {"source": hub_id, "path": str(folder)}, lambda console: console.print(str(folder), markup=False)
    )
