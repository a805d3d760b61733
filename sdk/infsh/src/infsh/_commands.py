"""The verbs of ``infsh app``. Results go to stdout, all that happens on the way to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import _deploy, _local, _template
from ._remote import Remote, RemoteError, open_remote

FAILED, USAGE, UNREACHABLE = 1, 2, 3

app = typer.Typer(help="Write, test and deploy inference apps.", no_args_is_help=True, pretty_exceptions_enable=False)
apps = typer.Typer(help="Work on one app.", no_args_is_help=True)
app.add_typer(apps, name="app")
_err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Url = Annotated[Optional[str], typer.Option("--url", help="The server; else INFERENCE_BASE_URL.")]
Key = Annotated[Optional[str], typer.Option("--key", help="The API key; else INFERENCE_API_KEY.")]
Folder = Annotated[Path, typer.Argument(help="The app's folder.")]
Input = Annotated[Optional[str], typer.Option("--input", "-i", help="JSON, a file with JSON, or - for stdin.")]
FunctionName = Annotated[Optional[str], typer.Option("--function", "-f", help="Default: the app's default function.")]
Setup = Annotated[Optional[str], typer.Option("--setup", help="Setup values, given like --input.")]


def fail(message: str, status: int) -> NoReturn:
    """Say why on stderr and end."""
    _err.print(Text(message, style="red"))
    raise typer.Exit(status)


def read_json(text: str | None, option: str) -> dict[str, Any]:
    """The object that an option gives: JSON, a file (with or without ``@``), or ``-``."""
    if text is None:
        return {}
    if text == "-":
        text = sys.stdin.read()
    elif not text.lstrip().startswith("{"):
        path = Path(text[1:] if text.startswith("@") else text).expanduser()
        if not path.is_file():
            fail(f"{option}: neither a JSON object nor a file: {text}", USAGE)
        text = path.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(f"{option}: not JSON: {error}", USAGE)
    if not isinstance(value, dict):
        fail(f"{option}: must be a JSON object", USAGE)
    return value


def show(value: Any) -> None:
    """A result on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[Remote]:
    """A server; its refusals and the build's failures become exit statuses."""
    try:
        with open_remote(url, key) as remote:
            yield remote
    except RemoteError as error:
        fail(str(error), UNREACHABLE if error.unreachable else USAGE)
    except _deploy.DeployError as error:
        fail(str(error), FAILED)


@apps.command()
def init(
    name: Annotated[str, typer.Argument(help="The app's name.")],
    dir_: Annotated[Path | None, typer.Option("--dir", help="Where; default: a folder of that name.")] = None,
    as_json: Json = False,
) -> None:
    """Make a folder with an app that runs."""
    folder = dir_ or Path(name)
    try:
        files = _template.write_template(name, folder)
    except _template.InitError as error:
        fail(str(error), USAGE)
    if as_json:
        show({"folder": str(folder), "files": files})
    else:
        _err.print(f"made {folder}: {', '.join(files)}")
        _err.print(f"next: infsh app test {folder}")


def _default_function(folder: Path) -> str | None:
    """What ``inf.yml`` names. A server checks the file in full when the app is deployed."""
    path = folder / "inf.yml"
    try:
        found = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
    except yaml.YAMLError as error:
        fail(f"{path} cannot be read: {' '.join(str(error).split())}", USAGE)
    named = found.get("default_function") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


@apps.command(name="test")
def try_(
    folder: Folder = Path(),
    input_: Input = None,
    function: FunctionName = None,
    setup: Setup = None,
    as_json: Json = False,
) -> None:
    """Run the app here, once, without a server: in its .venv if it has one."""
    request = {
        "function": function or _default_function(folder),
        "input": read_json(input_, "--input"),
        "setup": read_json(setup, "--setup"),
    }
    python = folder / ".venv" / "bin" / "python"
    command = [
        str(python.absolute()) if python.exists() else sys.executable,
        *("-I", "-X", "utf8", str(Path(_local.__file__).resolve())),
        *(str(folder), json.dumps(request)),
    ]
    last: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = json.loads(line)
            _show_event(last)
    if last.get("event") == "result":
        show({"output": last["output"]} if as_json else last["output"])
        return
    message = last["message"] if last.get("event") == "error" else f"the app ended with status {process.returncode}"
    if as_json:
        show({"error": message})
    fail(message, USAGE if last.get("kind") == "usage" else FAILED)


def _show_event(event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        _err.print(Text(f"  {event['current']}/{event['total']} {event['message'] or ''}".rstrip(), style="cyan"))
    elif event["event"] in ("partial", "delta"):
        _err.print(Text(f"  ≈ {json.dumps(event.get('output', event.get('delta')), ensure_ascii=False)[:160]}"))


class _Updates:
    """Prints what is new in a task's updates."""

    def __init__(self) -> None:
        self._status = ""
        self._progress: Any = None

    def show(self, update: dict[str, Any]) -> None:
        if update.get("status_text") != self._status:
            self._status = str(update.get("status_text"))
            _err.print(Text(self._status, style="bold"))
        for line in update.get("logs") or ():
            _err.print(Text(f"  {line}", style="dim"))
        progress = update.get("progress")
        if progress and progress != self._progress:
            self._progress = progress
            text = f"  {progress.get('current')}/{progress.get('total')} {progress.get('message') or ''}"
            _err.print(Text(text.rstrip(), style="cyan"))


@apps.command()
def deploy(
    folder: Folder = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be uploaded.")] = False,
    namespace: Annotated[str | None, typer.Option(help="Default: your own.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Upload the folder as a new version and wait for its build."""
    if dry_run:
        _dry_run(folder, as_json)
        return
    with connected(url, key) as remote:
        done = _deploy.deploy(folder, remote, _Updates().show, namespace)
    for message in done["messages"]:
        _err.print(Text(f"{message.get('level')}: {message.get('message')}", style="yellow"))
    version = done.get("version") or {}
    ref = f"{done.get('namespace')}/{done.get('name')}@{version.get('short_id')}"
    if as_json:
        show({"ref": ref, "app": {name: value for name, value in done.items() if name not in ("messages", "task")}})
    else:
        sys.stdout.write(f"{ref}\n")


def _dry_run(folder: Path, as_json: bool) -> None:
    try:
        with _deploy.packed(folder) as package:
            facts = {"files": package.files, "size": package.size, "digest": package.digest}
    except _deploy.DeployError as error:
        fail(str(error), FAILED)
    if as_json:
        show(facts)
    else:
        sys.stdout.write("".join(f"{name}\n" for name in package.files))
        _err.print(f"{len(package.files)} files, {package.size} bytes packed")


@apps.command()
def run(
    ref: Annotated[str, typer.Argument(help="namespace/name@version:function; all but the name may be left out.")],
    input_: Input = None,
    function: FunctionName = None,
    setup: Setup = None,
    session: Annotated[str | None, typer.Option(help="new, or the id of a session.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the accepted task and go.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Run an app on the server. Local paths in the input are uploaded."""
    body: dict[str, Any] = {"app": ref, "input": read_json(input_, "--input")}
    body.update({"setup": read_json(setup, "--setup")} if setup else {})
    body.update({name: value for name, value in (("function", function), ("session", session)) if value})
    with connected(url, key) as remote:
        body["input"] = _upload_paths(remote, body["input"])
        task = remote.run(body)
        if no_wait:
            show(task)
            return
        updates = _Updates()
        for update in remote.follow(task["id"]):
            updates.show(update)
        task = remote.call("GET", f"/tasks/{task['id']}")
    if as_json:
        show(task)
    elif task.get("status_text") == "completed":
        show(task.get("output"))
    if task.get("status_text") != "completed":
        fail(str(task.get("error") or task.get("status_text")), FAILED)


def _upload_paths(remote: Remote, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _upload_paths(remote, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_upload_paths(remote, item) for item in value]
    # Over that length the system refuses to look a path up, and nobody has such a path.
    if isinstance(value, str) and 0 < len(value) < 1024 and "\0" not in value and Path(value).is_file():
        return remote.upload(Path(value))["uri"]
    return value


@apps.command(name="list")
def list_(
    search: Annotated[str | None, typer.Option(help="Words in the name or description.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """List the apps that you may run."""
    query: dict[str, Any] = {"limit": min(limit, 100)}
    if search:
        query["search"] = {"term": search}
    items: list[dict[str, Any]] = []
    with connected(url, key) as remote:
        while len(items) < limit:
            page = remote.call("POST", "/apps/list", query)
            items += page["items"]
            query["cursor"] = page.get("next_cursor")
            if not query["cursor"] or not page["items"]:
                break
    if as_json:
        show(items[:limit])
        return
    table = Table("app", "version", "description", box=None)
    for item in items[:limit]:
        version = (item.get("version") or {}).get("short_id") or ""
        table.add_row(Text(f"{item['namespace']}/{item['name']}"), Text(version), Text(item.get("description") or ""))
    Console(highlight=False).print(table)
