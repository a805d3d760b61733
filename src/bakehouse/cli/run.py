"""``bakehouse run`` and ``bakehouse logs``: call an app and follow it; follow a task that somebody started."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.console import Console

from bakehouse.cli import options
from bakehouse.cli.endpoint import Endpoint, find_endpoint
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.inputs import parse_files, parse_values
from bakehouse.cli.output import Output
from bakehouse.cli.remote import refused
from bakehouse.cli.watch import Watch, status_text

if TYPE_CHECKING:
    from inferencesh import Inference

_CAPABILITY = "/files/c/"
_UNSAFE = re.compile(r"[^\w.\- ]")


@contextmanager
def open_client(url: str | None, key: str | None, home: Path | None) -> Iterator[tuple[Inference, Endpoint]]:
    """The client SDK for the server that the options of a command name."""
    # Imported here, because most commands do without it.
    from inferencesh import Inference

    endpoint = find_endpoint(url, key, home)
    client = Inference(api_key=endpoint.key, base_url=endpoint.url)
    try:
        yield client, endpoint
    finally:
        client.close()


def run(
    app: Annotated[str, typer.Argument(metavar="APP", help="\\[namespace/]name\\[@version]\\[:function]")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="VALUE", help="key=value, @file.json, - for stdin, or a JSON object."),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", "-f", metavar="KEY=PATH", help="A file, which is uploaded.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="VALUE", help="Setup values, written like --input.")
    ] = None,
    function: Annotated[str | None, typer.Option(help="The function to call.  \\[default: the app's own]")] = None,
    session: Annotated[str | None, typer.Option(help="'new', or the id of a session to go on with.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that the task may run.", min=0.001)] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Show the accepted task and leave it to itself.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save the files of the output there.", file_okay=False)
    ] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Run an app and show it live; the output goes to stdout. Ctrl-C cancels the task."""
    output = Output(json)
    params: dict[str, Any] = {
        "app": app,
        "input": {**parse_values(inputs or []), **parse_files(files or [])},
        "setup": parse_values(setup, "--setup") if setup else None,
        "function": function,
        "session": session,
        "timeout": timeout,
    }
    params = {name: value for name, value in params.items() if value is not None}
    with open_client(url, key, home) as (client, endpoint):
        task = client.run(params, wait=False)
        if no_wait:
            output.result(task, lambda console: console.print(task["id"], markup=False))
            return
        ended = _follow(client, task["id"], output)
        output.result(ended, lambda console: _draw_output(console, ended))
        if session == "new":
            output.say(f"session {ended['session_id']}")
        if save is not None:
            for path in save_files(ended.get("output"), save, endpoint.url):
                output.say(f"saved {path}")
    _exit_for(ended, output)


def logs(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the task is over.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """The log lines of a task; with --json each line is a JSON string."""
    output = Output(json)

    def write(lines: Iterable[str]) -> None:
        for line in lines:
            if json:
                output.result(line)
            else:
                output.line(line)

    with open_client(url, key, home) as (client, _):
        if not follow:
            write(client.get_task(task)["logs"])
            return
        for update in client.stream_task(task):
            write(update.get("logs") or ())


def _follow(client: Inference, task_id: str, output: Output) -> dict[str, Any]:
    """Show the task until it is over; the finished task. Ctrl-C cancels it and ends the command."""
    try:
        with Watch(output.err, quiet=output.as_json) as watch:
            for update in client.stream_task(task_id):
                watch.show(update)
    except KeyboardInterrupt:
        client.cancel(task_id)
        output.say(f"cancelling {task_id}", "yellow")
        raise
    return dict(client.get_task(task_id))


def _draw_output(console: Console, task: dict[str, Any]) -> None:
    if task.get("output") is not None:
        console.print_json(data=task["output"], ensure_ascii=False)


def _exit_for(task: dict[str, Any], output: Output) -> None:
    status = status_text(task)
    if status != "completed":
        reason = f": {task['error']}" if task.get("error") else ""
        output.say(f"{task['id']} {status}{reason}", "red")
        raise typer.Exit(Exit.FAILED)


# ---- files of the output --------------------------------------------------------------------------------------


def save_files(value: Any, directory: Path, base_url: str) -> list[Path]:
    """Download every file of the server in *value* into *directory*; where they are. Raises Failure."""
    uris = [uri for uri in _texts(value) if uri.startswith(base_url.rstrip("/") + _CAPABILITY)]
    directory.mkdir(parents=True, exist_ok=True)
    with httpx.Client(timeout=60.0) as client:
        return [_download(client, uri, directory) for uri in dict.fromkeys(uris)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _download(client: httpx.Client, uri: str, directory: Path) -> Path:
    # The name comes from the app: only its last part counts, and nothing is overwritten.
    name = _UNSAFE.sub("_", PurePosixPath(httpx.URL(uri).path).name).lstrip(".") or "file"
    target = _free(directory / name)
    try:
        with client.stream("GET", uri) as response, target.open("xb") as file:
            if response.is_error:
                raise Failure(f"cannot save {uri}: HTTP {response.status_code}", Exit.FAILED)
            for piece in response.iter_bytes():
                file.write(piece)
    except httpx.TransportError as error:
        raise refused(0, f"cannot fetch {uri}: {error}") from error
    return target


def _free(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
