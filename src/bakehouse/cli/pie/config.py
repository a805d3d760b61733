"""``pie config``: the settings file, which is that of ``bakehouse serve`` too."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Failure
from bakehouse.cli.output import Output
from bakehouse.settings import Settings, SettingsError, load_settings
from bakehouse.settings.load import FILE_NAME, config_file

app = typer.Typer(help="The settings file of this machine's server.", no_args_is_help=True)

_HEAD = f"# {FILE_NAME}: a line that begins with # is the default. `pie config set NAME VALUE` changes one.\n"


@app.command()
def init(home: options.Home = None, config: options.Config = None, as_json: options.Json = False) -> None:
    """Write a settings file in which every setting is explained and none is changed."""
    path = config or _home(home) / FILE_NAME
    if path.exists():
        raise Failure(f"{path} is there already", hint="`pie config set NAME VALUE` changes it.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(_HEAD + "".join(_explained(name) for name in _names()), encoding="utf-8")
    Output(as_json).result({"path": str(path)}, lambda console: console.print(f"wrote {path}", markup=False))


@app.command()
def show(
    key: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this setting.")] = None,
    home: options.Home = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show what the settings are: of the file, the environment, and the defaults."""
    settings = load_settings({"home": home}, environ=os.environ, config=config)
    names = _names() if key is None else [_known(key)]
    values = {name: _shown(settings, name) for name in names}
    Output(as_json).result(
        values if key is None else next(iter(values.values())),
        lambda console: console.print("\n".join(_line(*item) for item in values.items()), markup=False),
    )


@app.command("set")
def set_value(
    key: Annotated[str, typer.Argument(metavar="NAME", help="A setting, as `pie config show` names it.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A TOML value; anything else is taken as text.")],
    home: options.Home = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Change one setting in the file. A server takes it when it is started again."""
    name, read = _known(key), _value(value)
    path = config or config_file({"home": home}, os.environ) or _home(home) / FILE_NAME
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    text = changed(before, name, read)
    _write_checked(path, text, home)
    Output(as_json).result(
        {"path": str(path), name: read}, lambda console: console.print(f"{path}: {_line(name, read)}", markup=False)
    )


def changed(text: str, name: str, value: Any) -> str:
    """The settings file *text* with *name* set to *value*: in its line, be it commented out, else in a new one."""
    line = _line(name, value)
    top, tables = _parted(text)
    found = re.compile(rf"^#?[ \t]*{re.escape(name)}[ \t]*=.*$", re.MULTILINE)
    if found.search(top):
        return found.sub(lambda _: line, top, count=1) + tables
    before = f"{top.rstrip()}\n" if top.strip() else ""
    return f"{before}{line}\n" + (f"\n{tables}" if tables else "")


def _parted(text: str) -> tuple[str, str]:
    """What stands before the first table, where settings are, and the rest."""
    first = re.search(r"^[ \t]*\[", text, re.MULTILINE)
    return (text, "") if first is None else (text[: first.start()], text[first.start() :])


def _write_checked(path: Path, text: str, home: Path | None) -> None:
    """Put *text* in place, unless a server would refuse it. Raises Failure."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    try:
        load_settings({"home": home}, config=fresh)
        fresh.replace(path)
    except SettingsError as error:
        raise Failure(error.detail.replace(str(fresh), str(path))) from error
    finally:
        fresh.unlink(missing_ok=True)


def _home(home: Path | None) -> Path:
    return load_settings({"home": home}, environ=os.environ).home


def _names() -> list[str]:
    return list(Settings.model_fields)


def _known(key: str) -> str:
    """*key* as the file writes it; of a dotted one the first part is a setting. Raises Failure."""
    first, dot, rest = key.partition(".")
    name = first.replace("-", "_")
    if name not in Settings.model_fields:
        raise Failure(f"there is no setting {key!r}", hint="`pie config show` lists them.")
    return name + dot + rest


def _shown(settings: Settings, key: str) -> Any:
    name, dot, _ = key.partition(".")
    if dot:
        raise Failure(f"{key}: only whole settings are shown; ask for {name}")
    value = getattr(settings, name)
    if isinstance(value, dict):
        return sorted(value)  # what it holds may be secret
    return "(set)" if value and not Settings.model_fields[name].repr else _plain(value)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(name: str) -> str:
    field = Settings.model_fields[name]
    default = _plain(field.default)
    shown = "" if default is None else f" {json.dumps(default, ensure_ascii=False)}"
    return f"\n# {field.description}\n# {name} ={shown}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _line(name: str, value: Any) -> str:
    """A line of TOML. A JSON text, number, boolean or list of them is one of TOML too."""
    return f"{name} = {'(none)' if value is None else json.dumps(value, ensure_ascii=False)}"
