"""What `pie run` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bakehouse.cli.failures import Failure
from bakehouse.inferlets.base import Limits

#: Whose programs `pie run` runs.
OWNER = "local"
MANIFEST = "Pie.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A component, a Python file, or the name of a program that is installed; and how to run it."""

    program: str | None
    path: Path | None
    manifest: Path | None
    native: Path | None
    #: Components that it may spawn.
    also: tuple[Path, ...]
    arguments: tuple[str, ...]
    limits: Limits
    interactive: bool
    files: Path
    as_json: bool


def manifest_of(path: Path, given: Path | None) -> Path:
    """The manifest of the component *path*: the one that was *given*, else the one beside it. Raises Failure."""
    for option, file in (("", path), ("--manifest ", given)):
        if file is not None and not file.is_file():
            raise Failure(f"{option}{file}: there is no such file")
    found = given or path.parent / MANIFEST
    if not found.is_file():
        raise Failure(
            f"{path} needs its manifest",
            hint=f"Add --manifest PATH/{MANIFEST}; it says the program's name and version.",
        )
    return found
