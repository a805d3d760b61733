"""The models of a node: one file ``models/NAME.toml`` each in the data directory, the fields of a `ModelSpec` in it."""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path

from bakehouse.core.errors import Conflict, Invalid, NotFound
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.spec import ModelSpec

#: As an app's name, because `models/NAME` names a model where an app's ref can stand.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?", re.ASCII)


class Models:
    """Reads and writes the files; holds nothing."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "models"

    def path(self, name: str) -> Path:
        """Of the file. Raises Invalid for what is no name of a model."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a model: lower-case letters, digits and . _ - inside, at most 64")
        return self._folder / f"{name}.toml"

    def list(self) -> list[ModelSpec]:
        """All of them, by name. Raises Invalid naming a file that cannot be read."""
        return [self.get(path.stem) for path in sorted(self._folder.glob("*.toml"))]

    def changes(self) -> dict[str, int]:
        """When the file of each was last written, in nanoseconds, by name."""
        found = {}
        for path in sorted(self._folder.glob("*.toml")):
            with suppress(FileNotFoundError):  # it was just removed
                found[path.stem] = path.stat().st_mtime_ns
        return found

    def get(self, name: str) -> ModelSpec:
        path = self.path(name)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            return ModelSpec(name=name, **values)
        except FileNotFoundError:
            raise _unknown(name) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, BadRequest) as error:
            raise Invalid(f"{path}: {error}") from error

    def add(self, spec: ModelSpec, *, replace: bool = False) -> Path:
        """Write *spec*; Conflict when there is one of its name already, unless it is to be replaced."""
        path = self.path(spec.name)
        if path.exists() and not replace:
            raise Conflict(f"there is a model {spec.name!r} already; remove it first, or add it with --replace")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        fresh.write_text(_toml(spec), encoding="utf-8")
        fresh.replace(path)
        return path

    def remove(self, name: str) -> None:
        """Forget it, also where its file cannot be read; its weights stay where they are."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            raise _unknown(name) from None


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no model {name!r} here; `bakehouse models list` shows them")


def _toml(spec: ModelSpec) -> str:
    """What differs from the defaults. A JSON string or number is one of TOML too."""
    lines = []
    for field in fields(spec):
        value = getattr(spec, field.name)
        default = None if field.default is MISSING else field.default
        if field.name != "name" and value != default:
            lines.append(f"{field.name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
