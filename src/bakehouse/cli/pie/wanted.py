"""What `pie run` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bakehouse.inferlets.base import Limits

#: Whose programs `pie run` runs.
OWNER = "local"
MANIFEST = "Pie.toml"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A component, a Python file, or the name of a program that is installed; and how to run it."""

    program: str | None
    path: Path | None
    manifest: Path | None
    native: Path | None
    arguments: tuple[str, ...]
    limits: Limits
    interactive: bool
    files: Path
    as_json: bool
