"""Apps and versions as rows and back: what is nested becomes JSON text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from bakehouse.core.app import App, Function, Limits, Manifest, Requirement, Resources, Version


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def app_row(app: App) -> dict[str, Any]:
    """*app* as a row of ``apps``."""
    return {**{name: getattr(app, name) for name in App.__slots__}, "metadata": _json(app.metadata)}


def app_of(row: tuple[Any, ...]) -> App:
    """A row of ``apps``, by position."""
    fields: list[Any] = list(row)
    fields[11] = orjson.loads(row[11])
    return App(*fields)


def version_row(version: Version) -> dict[str, Any]:
    """*version* as a row of ``app_versions``."""
    row = {name: getattr(version, name) for name in Version.__slots__}
    row["manifest"] = _json(asdict(version.manifest))
    row["functions"] = _json([asdict(function) for function in version.functions])
    row["setup_schema"] = None if version.setup_schema is None else _json(version.setup_schema)
    return row


def version_of(row: tuple[Any, ...]) -> Version:
    """A row of ``app_versions``, by position."""
    functions = tuple(
        Function(**{**item, "capabilities": tuple(item["capabilities"])}) for item in orjson.loads(row[11])
    )
    fields: list[Any] = list(row)
    fields[8] = _manifest(orjson.loads(row[8]))
    fields[11] = functions
    fields[12] = None if row[12] is None else orjson.loads(row[12])
    return Version(*fields)


def _manifest(data: dict[str, Any]) -> Manifest:
    nested = {
        "resources": Resources(**data["resources"]),
        "limits": Limits(**data["limits"]),
        "secrets": tuple(Requirement(**item) for item in data["secrets"]),
    }
    return Manifest(**{**data, **nested})
