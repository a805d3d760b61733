"""What `pie run` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bakehouse.cli.failures import Failure
from bakehouse.inferlets.base import Limits

if TYPE_CHECKING:
    from bakehouse.settings import Settings
    from bakehouse.store.base import Store

#: Whose programs `pie run` runs, by name; what comes from a file belongs to nobody else, so the name serves as its id.
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


def whose(settings: Settings) -> str:
    """The id of the owner called `OWNER`, for whom servers on this data directory install. Raises BakehouseError."""
    # Imported here, because it loads SQLAlchemy, and a program that is a file needs no server's database.
    from bakehouse.cli.local import on_store
    from bakehouse.core.clock import SystemClock

    async def work(store: Store) -> str:
        return (await store.ensure_owner(OWNER, SystemClock().now())).id

    return on_store(settings, work)


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


def manifest_text(path: Path, given: Path | None) -> str:
    """What stands in it. Raises Failure."""
    found = manifest_of(path, given)
    try:
        return found.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{found}: not UTF-8: {error.reason}") from error


def python_file(given: Path) -> Path:
    """The file *given*, or the entry point of the folder *given*. Raises Failure, `BadProject`."""
    if given.is_dir():
        from bakehouse.inferlets.bakery import entry_of

        return given / entry_of(given)
    if not given.is_file():
        raise Failure(f"{given}: there is no such file")
    return given
