"""``bakehouse apps | tasks | cancel | secrets``: what is on a server, asked over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output
from bakehouse.cli.remote import Remote, open_remote
from bakehouse.core.errors import Invalid
from bakehouse.core.refs import Ref, parse_ref

apps = typer.Typer(help="Apps on the server.", no_args_is_help=True)
tasks = typer.Typer(help="Tasks on the server.", no_args_is_help=True)
secrets = typer.Typer(help="Secrets that apps read as environment variables.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]
AppRef = Annotated[str, typer.Argument(metavar="APP", help="namespace/name, name alone for your own, or an id.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]
SecretKey = Annotated[str, typer.Argument(metavar="KEY", help="The variable's name.")]


def find_app(remote: Remote, text: str) -> dict[str, Any]:
    """The app that *text* names: its id, or a ref whose namespace is the caller's own when it has none."""
    if text.startswith("app_"):
        return dict(remote.call("GET", f"/apps/{text}"))
    ref = _ref(text)
    namespace = ref.namespace or remote.call("GET", "/me")["team"]["username"]
    return dict(remote.call("GET", f"/apps/{namespace}/{ref.name}"))


def _ref(text: str) -> Ref:
    try:
        return parse_ref(text)
    except Invalid as error:
        raise Failure(f"{text!r} is no app: {error.detail}") from error


@apps.command("list")
def list_apps(
    limit: Limit = 50,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Your apps and the public ones."""
    with open_remote(url, key, home) as remote:
        found = remote.all("/apps/list", limit)
    Output(json).rows(
        found,
        ["APP", "VISIBILITY", "UPDATED", "DESCRIPTION"],
        lambda app: (app["ref"], app["visibility"], _minute(app["updated_at"]), app["description"]),
    )


@apps.command()
def show(
    app: AppRef,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """One app: its functions and what they take."""
    with open_remote(url, key, home) as remote:
        found = find_app(remote, app)
    Output(json).result(found, lambda console: _draw_app(console, found))


@apps.command()
def versions(
    app: AppRef,
    limit: Limit = 50,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """The versions of an app."""
    with open_remote(url, key, home) as remote:
        target = find_app(remote, app)
        found = remote.all(f"/apps/{target['id']}/versions/list", limit)
    Output(json).rows(
        found,
        ["VERSION", "LABEL", "STATE", "MADE", "CURRENT"],
        lambda version: (
            version["short_id"],
            version["label"],
            version["status"],
            _minute(version["created_at"]),
            "yes" if version["id"] == target["version_id"] else "",
        ),
    )


@apps.command("delete")
def delete_app(
    app: AppRef,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Delete an app; its tasks stay."""
    with open_remote(url, key, home) as remote:
        found = find_app(remote, app)
        remote.call("DELETE", f"/apps/{found['id']}")
    Output(json).result({"id": found["id"], "deleted": True}, lambda console: console.print(f"deleted {found['ref']}"))


@tasks.command("list")
def list_tasks(
    limit: Limit = 20,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Your newest tasks."""
    with open_remote(url, key, home) as remote:
        found = remote.all("/tasks/list", limit)
    Output(json).rows(
        found,
        ["TASK", "APP", "STATUS", "MADE", "ERROR"],
        lambda task: (task["id"], task["app"], task["status_text"], _minute(task["created_at"]), task["error"]),
    )


@tasks.command("show")
def show_task(
    task: TaskId,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """One task, whole."""
    with open_remote(url, key, home) as remote:
        Output(json).result(remote.call("GET", f"/tasks/{task}"))


@tasks.command("send")
def send_to_task(
    task: TaskId,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The message.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file instead, which is uploaded.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Send a message, or a file, to a task that is not over; it waits there until the task reads it."""
    if (text is None) == (file is None):
        raise Failure("say what to send: a text, or --file PATH")
    if file is not None and not file.is_file():
        raise Failure(f"{file}: there is no such file")
    with open_remote(url, key, home) as remote:
        content = text if file is None else {"file": remote.upload(file)["uri"]}
        found = remote.call("POST", f"/tasks/{task}/inbox", {"content": content})
    Output(json).result(found, lambda console: console.print(f"message {found['seq']} of {task}", markup=False))


@tasks.command("delete")
def delete_task(
    task: TaskId,
    files: Annotated[bool, typer.Option("--files", help="Its files too.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Delete a finished task."""
    with open_remote(url, key, home) as remote:
        remote.call("DELETE", f"/tasks/{task}{'?files=true' if files else ''}")
    Output(json).result({"id": task, "deleted": True}, lambda console: console.print(f"deleted {task}"))


def cancel(
    task: TaskId,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Cancel a task; one that is over stays as it is."""
    with open_remote(url, key, home) as remote:
        remote.call("POST", f"/tasks/{task}/cancel")
        found = remote.call("GET", f"/tasks/{task}/status")
    Output(json).result(found, lambda console: console.print(f"{task} is {found['status_text']}"))


@secrets.command("list")
def list_secrets(
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """The names of your secrets; values are never shown."""
    with open_remote(url, key, home) as remote:
        found = remote.all("/secrets/list", 1000)
    Output(json).rows(
        found,
        ["KEY", "VALUE", "UPDATED", "DESCRIPTION"],
        lambda secret: (secret["key"], secret["masked_value"], _minute(secret["updated_at"]), secret["description"]),
    )


@secrets.command("set")
def set_secret(
    secret: SecretKey,
    value: Annotated[str | None, typer.Option(help="The value.  \\[default: asked for, or read from stdin]")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Make a secret or replace its value; instances that start from now on see it."""
    text = value if value is not None else _ask(secret)
    with open_remote(url, key, home) as remote:
        known = {item["key"] for item in remote.all("/secrets/list", 1000)}
        body = {"value": text, **({"description": description} if description is not None else {})}
        if secret in known:
            found = remote.call("PUT", f"/secrets/{secret}", body)
        else:
            found = remote.call("POST", "/secrets", {"key": secret, **body})
    Output(json).result(found, lambda console: console.print(f"kept {secret}"))


@secrets.command("delete")
def delete_secret(
    secret: SecretKey,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Forget a secret."""
    with open_remote(url, key, home) as remote:
        remote.call("DELETE", f"/secrets/{secret}")
    Output(json).result({"key": secret, "deleted": True}, lambda console: console.print(f"deleted {secret}"))


def _ask(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Value of {name}", hide_input=True, err=True))
    text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise Failure(f"no value for {name}", hint="Write it to stdin, or pass --value.")
    return text


def _draw_app(console: Console, app: dict[str, Any]) -> None:
    version = app.get("version")
    console.print(f"{app['ref']}  ({app['id']}, {app['visibility']})", markup=False)
    if app["description"]:
        console.print(app["description"], markup=False)
    if version is None:
        console.print("no version is ready yet")
        return
    label = f", {version['label']}" if version["label"] else ""
    console.print(f"version {version['short_id']}{label}", markup=False)
    for function in version["functions"]:
        default = "  (default)" if function["name"] == version["default_function"] else ""
        console.print(f"\n{function['name']}{default}  {function['description']}".rstrip(), markup=False)
        _draw_schema(console, "takes", function["input_schema"])
        _draw_schema(console, "gives", function["output_schema"])
    if version["setup_schema"]:
        console.print()
        _draw_schema(console, "setup", version["setup_schema"])


def _draw_schema(console: Console, word: str, schema: dict[str, Any]) -> None:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        kind = field.get("format") or field.get("type") or "value"
        need = "required" if name in required else f"default {field['default']!r}" if "default" in field else "optional"
        console.print(f"  {word}  {name}: {kind}  {need}  {field.get('description', '')}".rstrip(), markup=False)


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")
