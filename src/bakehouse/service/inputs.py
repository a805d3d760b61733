"""Inputs are checked against the app's schema before anything is queued."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jsonschema_rs
import orjson

from bakehouse.core.app import Version
from bakehouse.core.errors import Invalid

_FILE_KEYS = frozenset({"uri", "path", "filename", "content_type", "size", "id", "remote_path", "category", "metadata",
                        "rating", "upload_url", "public", "created_at", "updated_at", "short_id", "url"})  # fmt: skip
MAX_ERRORS = 20
CACHED_VALIDATORS = 512


def plain_input(value: dict[str, Any]) -> dict[str, Any]:
    """*value* with file objects (``{"uri": ..., "filename": ...}``) replaced by their URIs."""
    for item in value.values():
        if isinstance(item, dict | list):
            return {key: _plain(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        uri = value.get("uri")
        if isinstance(uri, str) and uri and value.keys() <= _FILE_KEYS:
            return uri
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def find_uris(text: str) -> list[str]:
    """Strings in the JSON *text* that are http URLs, each once."""
    if "http" not in text:
        return []
    found: dict[str, None] = {}
    stack = [orjson.loads(text)]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if value.startswith(("http://", "https://")):
                found[value] = None
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return list(found)


class InputChecker:
    """Compiled validators by version and function; versions never change, so neither do they."""

    def __init__(self) -> None:
        self._validators: OrderedDict[tuple[str, str], jsonschema_rs.Validator] = OrderedDict()

    def check(self, version: Version, function: str, value: dict[str, Any]) -> None:
        """Raise Invalid with the path of every wrong field (at most 20)."""
        found = version.function(function)
        if found is not None:
            self._check(version.id, function, found.input_schema, value, "/input")

    def check_setup(self, version: Version, setup: dict[str, Any] | None) -> None:
        """The same for setup values; an app without a setup schema takes none."""
        if version.setup_schema is None:
            if setup:
                raise Invalid.at("/setup", "this app has no setup values")
            return
        self._check(version.id, "", version.setup_schema, setup or {}, "/setup")

    def _check(self, version_id: str, name: str, schema: dict[str, Any], value: dict[str, Any], root: str) -> None:
        validator = self._validator(version_id, name, schema)
        if validator.is_valid(value):
            return
        fields = []
        for error in validator.iter_errors(value):
            path = root + "".join(f"/{part}" for part in error.instance_path)
            fields.append({"path": path, "message": error.message})
            if len(fields) == MAX_ERRORS:
                break
        more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
        raise Invalid(f"{fields[0]['path']}: {fields[0]['message']}{more}", fields=fields)

    def _validator(self, version_id: str, name: str, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        key = (version_id, name)
        validator = self._validators.get(key)
        if validator is None:
            # Formats are the app's business: "file" is ours, the others pydantic checks in the child.
            validator = jsonschema_rs.validator_for(schema, validate_formats=False)
            self._validators[key] = validator
            if len(self._validators) > CACHED_VALIDATORS:
                self._validators.popitem(last=False)
        return validator
