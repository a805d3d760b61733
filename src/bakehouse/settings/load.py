"""Read the settings: defaults, then ``bakehouse.toml``, then ``BAKEHOUSE_*``, then flags; the later wins.

Anything that is not understood stops the start, all at once and by name: a setting that is silently ignored is worse
than a server that does not start.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bakehouse.core.errors import BakehouseError
from bakehouse.settings.model import DEFAULT_HOME, Settings

PREFIX = "BAKEHOUSE_"
CONFIG = "BAKEHOUSE_CONFIG"
FILE_NAME = "bakehouse.toml"


class SettingsError(BakehouseError):
    """The settings cannot be used. ``fields``: ``[{"path": "port", "message": "...", "source": "..."}]``."""

    status = 400
    code = "bad_settings"

    @classmethod
    def of(cls, fields: list[dict[str, Any]]) -> SettingsError:
        """One error for all *fields*, a line each."""
        return cls("\n".join(f"{field['source']}: {field['message']}" for field in fields), fields=fields)


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    assigned: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings of this start. Flags that are None were not given; *assigned* are those of ``--set NAME=VALUE``.

    *config* is the file to read; without it ``BAKEHOUSE_CONFIG``, then ``bakehouse.toml`` in *directory* (the working
    directory), then the one in the data directory is read if it exists. Raises SettingsError.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    variables = {name: value for name, value in (environ or {}).items() if name.startswith(PREFIX)}
    path = config_file(given, variables, config, directory)
    layers = [(str(path), _from_file(path))] if path else []
    layers += [("environment", _from_environment(variables)), ("command line", given)]
    layers += [("--set", _known(assigned or {}, "--set"))]
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, layer in layers:
        values |= layer
        origin |= {name: _label(name, source) for name in layer}
    return _checked(values, origin)


def config_file(
    flags: Mapping[str, Any], variables: Mapping[str, str], config: Path | None = None, directory: Path | None = None
) -> Path | None:
    """The file that `load_settings` reads, if there is one. Raises SettingsError where *config* is none."""
    directory = directory or Path.cwd()
    named = config or (Path(variables[CONFIG]) if variables.get(CONFIG) else None)
    if named is not None:
        path = named.expanduser()
        if not path.is_file():
            raise SettingsError.of([{"path": "config", "source": str(path), "message": "there is no such file"}])
        return path
    home = Path(flags.get("home") or variables.get(PREFIX + "HOME") or DEFAULT_HOME).expanduser()
    return next((path for path in (directory / FILE_NAME, home / FILE_NAME) if path.is_file()), None)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError.of([{"path": "config", "source": str(path), "message": f"not TOML: {error}"}]) from error
    return _known(found, str(path))


def _known(found: Mapping[str, Any], source: str) -> dict[str, Any]:
    _refuse_unknown({name: name for name in found}, source, "setting")
    return dict(found)


def _from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    names = {name: name.removeprefix(PREFIX).lower() for name in variables if name != CONFIG}
    _refuse_unknown(names, "environment", "variable")
    return {field: variables[name] for name, field in names.items()}


def _refuse_unknown(names: Mapping[str, str], source: str, noun: str) -> None:
    """*names* maps what was written to the field that it would mean."""
    unknown = {written: field for written, field in names.items() if field not in Settings.model_fields}
    if unknown:
        fields = [_unknown(written, field, source, noun) for written, field in unknown.items()]
        raise SettingsError.of(fields)


def _unknown(written: str, field: str, source: str, noun: str) -> dict[str, Any]:
    close = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.5)
    hint = ""
    if close:
        hint = f"; did you mean {PREFIX + close[0].upper() if noun == 'variable' else close[0]}?"
    return {"path": field, "source": source, "message": f"unknown {noun} {written}{hint}"}


def _label(name: str, source: str) -> str:
    if source == "environment":
        return PREFIX + name.upper()
    return "--" + name.replace("_", "-") if source == "command line" else f"{source}: {name}"


def _checked(values: Mapping[str, Any], origin: Mapping[str, str]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError.of([_problem(found, origin) for found in error.errors()]) from error


def _problem(found: Any, origin: Mapping[str, str]) -> dict[str, Any]:
    """One of pydantic's findings in our words; values are shown unless they may hold a password."""
    name = str(found["loc"][0]) if found["loc"] else ""
    message = found["msg"].removeprefix("Value error, ")
    if name and name not in ("database_url", "mcp_servers"):
        message = f"{message} (not {found['input']!r})"
    return {"path": name or "settings", "source": origin.get(name, name or "settings"), "message": message}
