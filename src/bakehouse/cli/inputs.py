"""What a person writes after ``--input``, as the object that an app gets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bakehouse.cli.failures import Failure


def parse_values(
    values: Sequence[str], option: str = "--input", *, stdin: Callable[[], str] = sys.stdin.read
) -> dict[str, Any]:
    """Each of *values* is ``key=value``, ``@file.json``, ``-`` (JSON on stdin) or a JSON object; later ones win.

    A value that reads as JSON is that (``n=3``, ``tags=["a"]``), any other is text. Raises Failure.
    """
    merged: dict[str, Any] = {}
    for value in values:
        merged |= _parse_one(value, option, stdin)
    return merged


def _parse_one(value: str, option: str, stdin: Callable[[], str]) -> dict[str, Any]:
    if value == "-":
        return _object(stdin(), f"{option} -")
    if value.startswith("@"):
        return _object(_read(Path(value[1:]), option), f"{option} {value}")
    if value.lstrip().startswith("{"):
        return _object(value, option)
    key, equals, text = value.partition("=")
    if not equals or not key:
        raise Failure(f"{option} {value}: write key=value, @file.json, - for stdin, or a JSON object")
    return {key: _scalar(text)}


def _scalar(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_not_json)
    except ValueError:
        return text


def _not_json(name: str) -> Any:
    # `word=NaN` is a word: JSON has no such number.
    raise ValueError(name)


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Failure(f"{source}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Failure(f"{source}: must be a JSON object, not {type(found).__name__}")
    return found


def _read(path: Path, option: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{option} @{path}: cannot be read: {error}") from error


def parse_files(values: Sequence[str]) -> dict[str, Path]:
    """``key=path`` per file, which must exist. Raises Failure."""
    found: dict[str, Path] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise Failure(f"--file {value}: write key=path")
        path = Path(text).expanduser()
        if not path.is_file():
            raise Failure(f"--file {key}: there is no file {path}")
        found[key] = path
    return found
